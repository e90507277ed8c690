# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Real runs of the command line that are killed at random moments, and what comes after them.

``python -m tests.stress.faults`` kills 20 trainings, 20 fillings of the feature cache, 20 tests and 20 exports by
SIGKILL. Every second kill comes at a random time; the others come right before a random one of the times that a file is
opened to be written, renamed or removed, moments that a clock would seldom hit. After each kill, every file that is
there has to be whole; then the run is resumed or repeated, and has to end as an unbroken one. Not for Windows.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.stress.faults.killed_run import PHASES, Kill, run
from tests.stress.faults.scenarios import Scenario, Scenarios


def kill_and_go_on(scenario: Scenario, runs: int, root: Path, random_numbers: random.Random) -> Iterator[str]:
    """Kill a run again and again.

    Yields:
        What was killed when, after all of it was right.

    Raises:
        AssertionError: If a file is half written, or the run does not end as an unbroken one.
    """
    unbroken = root / "unbroken"
    scenario.prepare(unbroken)
    whole = run(scenario.phase, scenario.arguments(unbroken), unbroken)
    expected = scenario.result(unbroken)
    for number in range(runs):
        folder = root / str(number)
        killed = False
        while not killed:  # a run may be over before its time has come
            shutil.rmtree(folder, ignore_errors=True)
            scenario.prepare(folder)
            by_clock = number % 2 == 0
            kill = Kill(
                seconds=random_numbers.uniform(0, whole.seconds) if by_clock else None,
                event=None if by_clock else random_numbers.randrange(whole.events),
            )
            killed = run(scenario.phase, scenario.arguments(folder), folder, kill).killed
        scenario.check(folder)
        run(scenario.phase, scenario.goes_on(folder), folder)
        assert_same(scenario.result(folder), expected)
        yield f"after {kill.seconds:.2f} of {whole.seconds:.2f} s" if by_clock else f"at {kill.event} of {whole.events}"
        shutil.rmtree(folder)


def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
        )


def main(phases: list[str], runs: int, seed: int) -> None:
    """Kill runs of each phase, and print what was right."""
    random_numbers = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        scenarios = Scenarios(Path(root))
        for phase in phases:
            of_phase = scenarios.of(phase)
            for number, (title, scenario) in enumerate(of_phase.items()):
                share = runs // len(of_phase) + (number < runs % len(of_phase))
                whens = kill_and_go_on(scenario, share, Path(root) / title, random_numbers)
                for done, when in enumerate(whens, start=1):
                    print(f"{title} {done} of {share}: killed {when}; all files whole; ended as unbroken", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="kills of each phase")
    parser.add_argument("--only", nargs="+", choices=PHASES, default=list(PHASES), help="phases")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    given = parser.parse_args()
    main(given.only, given.runs, given.seed)

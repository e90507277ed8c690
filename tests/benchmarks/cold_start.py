# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Processor time from the start of a process to its end, of imports and commands: what a user waits for at least.

Seconds of processor time hardly depend on what else a machine does; the first start after an installation also reads
the files from the disk, and compiles them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.helpers.drawn_models import brightness_model, flat_image

REPEATS = 3


def processor_seconds(command: list[str | Path]) -> float:
    """Seconds of processor time, of the user and of the system, that a command takes."""
    before = os.times()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="folder of a tested run, to report on")
    parser.add_argument("--json", type=Path, required=True, help="file to write the figures to")
    arguments = parser.parse_args(command)
    ours: list[str | Path] = ["-m", "anomalib_hgad.cli"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        flat_image(folder / "shown/a.png", 1, 2, 3)
        model = brightness_model(folder / "model.xml")
        cases: dict[str, list[str | Path]] = {
            "python": ["-c", "pass"],
            **{f"import {package}": ["-c", f"import {package}"] for package in ("openvino", "torch", "anomalib")},
            "import anomalib.models": ["-c", "import anomalib.models"],
            "anomalib-hgad --help": [*ours, "--help"],
            "anomalib-hgad report --help": [*ours, "report", "--help"],
            "anomalib-hgad watch --help": [*ours, "watch", "--help"],
            "anomalib-hgad watch, one image": [
                *(*ours, "watch", folder / "shown", "--model", model, "--settle=0", "--once"),
                *("--output", folder / "table.csv"),
            ],
        }
        if arguments.run is not None:
            cases["anomalib-hgad report"] = [*ours, "report", arguments.run, "--output", folder / "report.html"]
        seconds: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(REPEATS):
            for case, of_case in cases.items():
                seconds[case].append(processor_seconds(of_case))
                (folder / "table.csv").unlink(missing_ok=True)
    figures = {case: round(statistics.median(values), 2) for case, values in seconds.items()}
    for case, value in figures.items():
        print(f"{case}: {value:.2f} s", flush=True)
    versions = {package: version(package) for package in ("anomalib", "openvino", "torch")}
    made_with = {"repeats": REPEATS, "cores": os.cpu_count(), "python": platform.python_version()} | versions
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"made_with": made_with, "processor seconds": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()

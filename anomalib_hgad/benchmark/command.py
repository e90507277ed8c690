# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Runs a benchmark: finished runs are kept, failed runs do not stop the others."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments for the config schema.

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markdown import Markdown

from anomalib_hgad.benchmark import execution
from anomalib_hgad.benchmark.execution import RECORD_FILE, SETTINGS_FILE
from anomalib_hgad.benchmark.plan import ModelChoice, Protocol, Run, Setting, make_plan
from anomalib_hgad.benchmark.summary import summarise, write_summary
from anomalib_hgad.common.files import write_json
from anomalib_hgad.common.terminal import console
from anomalib_hgad.common.versions import installed_versions
from anomalib_hgad.data.arguments import multi_class

LOG_FILE = "log.txt"


def benchmark(
    models: dict[str, ModelChoice],
    data: dict[str, Any],
    seeds: list[int] = [0],  # noqa: B006  # jsonargparse shows it
    setting: Setting = "unified",
    max_epochs: int = 12,
    image_size: int = 256,
    backbone_weights: dict[str, str] = {},  # noqa: B006
    output: Path = Path("results/benchmark"),
    only: list[str] | None = None,
) -> int:
    """Train and test anomalib models on the same classes, and write tables of their metrics.

    Every model trains for the same number of epochs, and is tested with the weights of the last epoch. Repeat the
    command to resume an interrupted benchmark: only missing runs are executed.

    Args:
        models: The models: a name for the row of the table, the ``model``'s name in anomalib and its ``arguments``.
        data: Arguments of ``MultiClass``.
        seeds: Seeds; every model is trained with each.
        setting: One model for all classes, or one for each.
        max_epochs: Number of training epochs.
        image_size: Side of the square that images are resized to.
        backbone_weights: Local files with backbone weights by timm model name, instead of downloads.
        output: Folder for the tables and for the files of every run.
        only: Rows to run; ``None`` runs all.

    Returns:
        Number of runs that failed.

    Raises:
        ValueError: If a setting is wrong, or if a run in the folder was made with other settings, versions or classes.
    """
    protocol = Protocol(data, image_size, max_epochs, backbone_weights, setting)
    plan = make_plan(models, protocol, seeds, only)
    check_classes(plan, output)
    terminal = console()
    failed = []
    missing = [run for run in plan if finished(run, output) is None]
    for number, run in enumerate(missing, start=1):
        terminal.print(f"{number} of {len(missing)}: {run.title}")
        folder = output / run.folder
        status = run_in_own_process(run, folder)
        if finished(run, output) is None:
            failed.append(run)
            terminal.print(f"  failed with exit status {status}: {folder / LOG_FILE}")
        write_summary(summarise(records(plan, output)), output)
    summary = summarise(records(plan, output))
    write_summary(summary, output)
    terminal.print(Markdown(summary.markdown), soft_wrap=False)
    if failed:
        terminal.print(f"{len(failed)} of {len(plan)} runs failed: {', '.join(run.title for run in failed)}")
    return len(failed)


def check_classes(plan: Sequence[Run], output: Path) -> None:
    """Check that finished runs of all classes have those of the data: means over other classes cannot be compared.

    Args:
        plan: The runs, at least one.
        output: Folder of the benchmark.

    Raises:
        ValueError: If one has others, for example because the folder of a class was added.
    """
    names = multi_class(plan[0].protocol.data).class_names  # none where they are clusters
    for run in plan:
        record = finished(run, output)
        if names and record is not None and run.only_class is None and set(record["classes"]) != set(names):
            msg = f"{output / run.folder} was made with the classes {', '.join(record['classes'])}; the data has "
            msg += f"{', '.join(names)}. Choose another output, or remove that folder."
            raise ValueError(msg)


def records(plan: list[Run], output: Path) -> list[dict[str, Any]]:
    """Records of the finished runs of a plan."""
    return [record for run in plan if (record := finished(run, output)) is not None]


def run_in_own_process(run: Run, folder: Path) -> int:
    """Run one training and test, and redirect the output to :data:`LOG_FILE`.

    In a separate process, a killed run, for example when out of memory, is a single failed run, and the peak memory is
    that of this run only.

    Args:
        run: What to run.
        folder: Folder for its files; existing content is removed.

    Returns:
        Exit status.
    """
    shutil.rmtree(folder, ignore_errors=True)
    write_json(run.settings, folder / SETTINGS_FILE)
    with (folder / LOG_FILE).open("wb") as log:
        command = [sys.executable, "-m", execution.__name__, str(folder)]
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode  # noqa: S603


def finished(run: Run, output: Path) -> dict[str, Any] | None:
    """Record of a finished run.

    Args:
        run: The run.
        output: Folder of the benchmark.

    Returns:
        Its record; ``None`` if it is not finished.

    Raises:
        ValueError: If it was made with other settings or versions.
    """
    path = output / run.folder / RECORD_FILE
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    for name, here in (("settings", run.settings), ("versions", installed_versions(execution.REPORTED_PACKAGES))):
        if record[name] != here:
            msg = f"{path.parent} was made with other {name}: {record[name]}, now {here}. Choose another output, or "
            msg += "remove that folder."
            raise ValueError(msg)
    return record

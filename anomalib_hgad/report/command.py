# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Write a report of a run."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

import os
from collections.abc import Sequence
from pathlib import Path

from anomalib_hgad.common.files import write_text
from anomalib_hgad.common.terminal import console

PAGE = "report.html"


def report(run: Path, compare: Sequence[Path] = (), output: Path | None = None, monitor: Path | None = None) -> Path:
    """Write one HTML page about a tested run of Hgad: its decisions, metrics and reasons.

    The page is self-contained and needs no network.

    Args:
        run: Folder of the run, with ``predictions.csv`` in it.
        compare: Folders of up to three other runs on the same data, whose metrics, settings and log-likelihoods are
            shown side by side, such as one with a single Gaussian (``--model.prior single_gaussian``).
        output: The file. ``None`` is ``report.html`` in the folder of the run.
        monitor: Folder that ``anomalib-hgad monitor`` has written for the run's checkpoint, to show its drift. ``None``
            shows no drift.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If a file of a run, a tested image or the monitor's table is missing.
        ValueError: If a run is not of Hgad, if its test had no ground truth, or if runs and table do not match.
    """
    if output is not None and output.is_dir():
        msg = f"Expected a file for the page as output, got the folder {output}. Give {output / PAGE}."
        raise IsADirectoryError(msg)
    # Otherwise OpenMP's threads wait at full load, which takes most of the processor time if other programs run.
    # PyTorch reads it when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A help text need not wait for PyTorch and anomalib, whose imports take seconds.
    from anomalib_hgad.report.comparison import check_compared  # noqa: PLC0415
    from anomalib_hgad.report.drift import read_drift  # noqa: PLC0415
    from anomalib_hgad.report.page import render  # noqa: PLC0415
    from anomalib_hgad.report.run_files import read_run  # noqa: PLC0415

    check_compared(run, compare)
    files = read_run(run)
    drift = None if monitor is None else read_drift(monitor, files.model.class_names)
    page = render(files, [read_run(other) for other in compare], drift)
    path = output or run / PAGE
    write_text(path, lambda file: file.write(page))
    console().print(f"Report: {path}")
    return path

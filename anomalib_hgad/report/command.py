# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Put a run on one page."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

import os
from pathlib import Path

from rich.console import Console

from anomalib_hgad.common.files import write_text

PAGE = "report.html"


def report(run: Path, compare: Path | None = None, output: Path | None = None) -> Path:
    """Write one HTML page on a tested run of Hgad: what it decided, how well, and why.

    The page holds all it shows; it needs no network.

    Args:
        run: Folder of the run, with ``predictions.csv`` in it.
        compare: Folder of another run on the same data, whose log-likelihoods stand beside; of a single Gaussian
            (``--model.prior single_gaussian``), say.
        output: The file. ``None`` is ``report.html`` in the folder of the run.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If a file of the run or a tested image is missing.
        ValueError: If the run is not of Hgad, or if its test had no ground truth.
    """
    # OpenMP's threads wait for one another at full load otherwise, which on a machine that has other work takes most of
    # the processor's time; PyTorch looks for it when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What takes seconds to be imported, PyTorch and anomalib, a help text need not wait for.
    from anomalib_hgad.report.page import render  # noqa: PLC0415
    from anomalib_hgad.report.run_files import read_run  # noqa: PLC0415

    files = read_run(run)
    others = None if compare is None else read_run(compare)
    page = render(files, others)
    path = output or run / PAGE
    write_text(path, lambda file: file.write(page))
    Console(markup=False).print(f"Report: {path}")  # a name may have brackets
    return path

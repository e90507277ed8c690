# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Runs to report on, and what a monitor has written beside."""

from __future__ import annotations

from pathlib import Path

from anomalib_hgad import MultiClass, cli
from tests.helpers import trees
from tests.helpers.engines import train_and_test
from tests.helpers.monitored_line import line_checkpoint, write_line


def write_classes(root: Path) -> Path:
    """Write classes with masks and one without, one with a name that is markup.

    Args:
        root: Where.

    Returns:
        The same folder.
    """
    for name in ("bolt", "nut <b>&$x", "washer"):
        trees.mvtec_class(root / name, masks=name != "washer")
    return root


def tested_run(data: Path, folder: Path, **settings: str) -> Path:
    """Train and test a light Hgad on these classes.

    Args:
        data: Their folder.
        folder: Where its results go.
        **settings: Of the model.

    Returns:
        Folder of the run.
    """
    datamodule = MultiClass(root=data, train_batch_size=4, eval_batch_size=4, num_workers=0)
    return train_and_test(datamodule, folder, **settings)


def monitored_line(folder: Path) -> Path:
    """Monitor a line with two of the classes.

    Args:
        folder: Where the line's tables go.

    Returns:
        What the monitor has written.
    """
    periods = map(str, write_line(folder, line_checkpoint()))
    output = folder / "monitor"
    assert cli.main(["monitor", *periods, "--ckpt_path", str(folder / "model.ckpt"), "--output", str(output)]) == 0
    return output


def whole_page(run: Path, other: Path, monitored: Path) -> str:
    """Report on a run with all that a page can have.

    Args:
        run: Folder of the run.
        other: That of one to compare it with.
        monitored: What a monitor has written.

    Returns:
        The page.
    """
    assert cli.main(["report", str(run), "--compare", str(other), "--monitor", str(monitored)]) == 0
    return (run / "report.html").read_text(encoding="utf-8")

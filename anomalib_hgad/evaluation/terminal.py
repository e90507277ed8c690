# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Output of a test on the terminal at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Trainer
from rich import get_console
from rich.text import Text

from anomalib_hgad.evaluation.pictures import SeparatePictures
from anomalib_hgad.evaluation.results import Results, results_table


def show_test(trainer: Trainer, results: Results, images: Mapping[str, int], title: str) -> None:
    """Print the table of a test, where its files are, and the next command.

    Args:
        trainer: Trainer of the test.
        results: Its metrics.
        images: Numbers of images, as in :func:`~anomalib_hgad.evaluation.results.results_table`.
        title: Line above the table.
    """
    console = get_console()
    console.print(results_table(results, title, images))
    for name, place in places(trainer).items():
        console.print(Text(f"{name:<11} {place}"), soft_wrap=True)


def places(trainer: Trainer) -> dict[str, str]:
    """Return where the files of a test are, and the next command.

    Args:
        trainer: Trainer of the test.

    Returns:
        Paths and the command, by name. Paths within the working directory are relative to it.
    """
    folder = Path(trainer.default_root_dir)
    found = {"Metrics": _shown(folder / "results.csv")}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning does not declare the list
        if isinstance(callback, SeparatePictures) and callback.written:
            # Of several processes, this one does not know how many the others have saved.
            note = f" ({callback.note})" if trainer.world_size == 1 else ""
            found["Pictures"] = _shown(callback.folder(trainer)) + note
    checkpoint = trainer.ckpt_path or getattr(trainer.checkpoint_callback, "best_model_path", "")
    if checkpoint:
        found["Checkpoint"] = _shown(Path(checkpoint))
    return found | {"Next": f"anomalib-hgad report {shlex.quote(_shown(folder))}"}


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)

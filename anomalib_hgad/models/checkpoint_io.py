# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Writes checkpoints atomically and reads them as data only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile, is_zipfile

from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import TorchCheckpointIO

from anomalib_hgad.common.files import atomic_write

LIGHTNING_VERSION = "pytorch-lightning_version"
"""Key of all checkpoints of Lightning, which it asks for first."""


@contextmanager
def explain_checkpoint_errors(path: str | Path) -> Iterator[None]:
    """Make read errors name the checkpoint; PyTorch's own errors describe the failing read only.

    Args:
        path: The checkpoint. Anything but a local file is left to Lightning.

    Raises:
        ValueError: If it is truncated, is not a checkpoint, or holds more than data.
    """
    if Path(path).is_file() and not _holds_a_pickle(Path(path)):
        msg = f"{path} ({Path(path).stat().st_size} bytes) is not a checkpoint, or is truncated. Copy it again, or "
        msg += "use an earlier one."
        raise ValueError(msg)
    try:
        yield
    except UnpicklingError as error:
        msg = f"{path} holds more than tensors and plain data, and reading it could run a program. Checkpoints of this "
        msg += "package hold nothing of that kind: use one that anomalib has written, or train again."
        raise ValueError(msg) from error
    except KeyError as error:
        if error.args != (LIGHTNING_VERSION,):
            raise
        msg = (
            f"{path} is not a checkpoint: a training did not write it. It may hold weights alone. Give the checkpoint "
        )
        msg += "that a training has written into weights/lightning of its run."
        raise ValueError(msg) from error


def _holds_a_pickle(path: Path) -> bool:
    """Whether a file is an archive of PyTorch; workbooks and exported programs are archives too."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())


class WholeCheckpointIO(AnomalibCheckpointIO):
    """Writes a checkpoint under a temporary name in its folder and renames it.

    Lightning writes to the system's folder for temporary files and moves the file from there. Between two disks that is
    a copy: a process that is killed during it leaves a truncated checkpoint in place of the last complete one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ANN401
        """Write a checkpoint.

        Args:
            checkpoint: The contents.
            path: The file. Anything but a local path is left to Lightning.
            storage_options: As in Lightning.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_write(Path(path)) as unfinished:
            super().save_checkpoint(checkpoint, unfinished, storage_options)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Read a checkpoint.

        Args:
            path: The file.
            *args: As in anomalib.
            **kwargs: As in anomalib.

        Returns:
            Its contents.

        Raises:
            ValueError: If it cannot be read.
        """
        with explain_checkpoint_errors(path):
            return super().load_checkpoint(path, *args, **kwargs)


class WholeCheckpoints(Callback):
    """Makes the trainer use :class:`WholeCheckpointIO`, unless the user has given it another plugin."""

    def setup(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:
        """Set the plugin before any checkpoint is read."""
        del pl_module, stage
        given = trainer.strategy.checkpoint_io
        # anomalib's engine gives the one, a plain Lightning trainer the other.
        if type(given) in {AnomalibCheckpointIO, TorchCheckpointIO}:
            trainer.strategy.checkpoint_io = WholeCheckpointIO(getattr(given, "extra_safe_globals", None))

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Storage of the features of images, in main memory or in files.

Dimensions: N images, D channels of a level, H x W its grid.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalib_hgad.common.files import atomic_write

Shapes = Sequence[tuple[int, int, int]]
"""(D, H, W) of every level."""

CACHE_ADVICE = "Give another folder, feature_cache=FOLDER, or turn the cache off, feature_cache=False."

FILE_BYTES = 2
"""Bytes of a number in a file."""


class MemoryFeatures:
    """Features in main memory, in the precision that they were computed in.

    Args:
        count: N.
        shapes: Shapes of the levels.
        dtype: Type of the numbers.
    """

    def __init__(self, count: int, shapes: Shapes, dtype: torch.dtype) -> None:
        self.levels = [torch.empty((count, *shape), dtype=dtype) for shape in shapes]

    def fill(self, batches: Iterable[list[torch.Tensor]]) -> None:
        """Set the features.

        Args:
            batches: Feature maps of the levels, shapes (B, D, H, W), batch by batch.
        """
        start = 0
        for batch in batches:
            for level, values in zip(self.levels, batch, strict=True):
                level[start : start + len(values)] = values
            start += len(batch[0])

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        """Return the features of the levels of an image, shapes (D, H, W)."""
        return [level[index] for level in self.levels]


class FileFeatures:
    """Features in files that several processes wrote; image i is in file i % n, at position i // n.

    The files are memory-mapped immediately, so that they may be deleted later. The maps are never pickled: a dataloader
    worker that is not a fork of this process maps the files again.

    Args:
        paths: The n files.

    Raises:
        FileNotFoundError: If a file is missing or incomplete.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._shards: dict[int, np.ndarray] = {}
        for number in range(len(self.paths)):
            self._shard(number)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        """Return the features of the levels of an image, float32, shapes (D, H, W)."""
        levels = self._shard(index % len(self.paths))[index // len(self.paths)]
        return [torch.from_numpy(levels[name].astype(np.float32)) for name in levels.dtype.names]

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            try:
                self._shards[number] = np.load(self.paths[number], mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                msg = f"{self.paths[number]} of the feature cache was deleted or changed during a training that uses "
                msg += f"it ({type(error).__name__}). Start again; the file is then rewritten. {CACHE_ADVICE}"
                raise FileNotFoundError(msg) from error
        return self._shards[number]

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_shards": {}}


def shard_dtype(shapes: Shapes) -> np.dtype[np.void]:
    """Return the type of an image's features in a file, which includes the shapes of the levels."""
    return np.dtype([(f"level{index}", "<f2", tuple(shape)) for index, shape in enumerate(shapes)])


def is_intact(path: Path, count: int, shapes: Shapes) -> bool:
    """Check whether a file holds the features of that many images with these shapes.

    Args:
        path: The file.
        count: Number of images.
        shapes: Shapes of the levels.

    Returns:
        The result; ``False`` also if there is no such file.
    """
    try:
        shard = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # no file, no NumPy file, or a truncated one
        return False
    return isinstance(shard, np.ndarray) and shard.dtype == shard_dtype(shapes) and shard.shape == (count,)


def write_shard(path: Path, count: int, shapes: Shapes, batches: Iterable[list[torch.Tensor]]) -> None:
    """Write the features of images to a file, atomically.

    Args:
        path: The file.
        count: Number of images.
        shapes: Shapes of the levels.
        batches: Feature maps of the levels, shapes (B, D, H, W), batch by batch.

    Raises:
        ValueError: If a feature exceeds the range of float16.
        OSError: If the file cannot be written, for example because the disk is full.
    """
    dtype = shard_dtype(shapes)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    try:
        # Written front to back instead of through a memory map: a disk that becomes full is then an error, while a
        # memory map would kill the process.
        with atomic_write(path) as unfinished, unfinished.open("wb") as file:
            np.lib.format.write_array_header_2_0(file, header)
            for batch in batches:
                records = np.empty(len(batch[0]), dtype)
                for name, level in zip(dtype.names or (), batch, strict=True):
                    records[name] = _as_half(level).numpy()
                file.write(records.tobytes())
    except OSError as error:
        if error.errno is None:  # from an image that could not be read
            raise
        msg = f"The features cannot be written to {path.parent} ({error}). {CACHE_ADVICE}"
        raise OSError(error.errno, msg) from error


def _as_half(level: torch.Tensor) -> torch.Tensor:
    half = level.to(torch.float16)
    if not half.isfinite().all():
        msg = f"Features reach {level.abs().max().item():.3g}, but the files of the feature cache are in float16, "
        msg += f"with values up to {torch.finfo(torch.float16).max:.0f}. Turn the cache off, feature_cache=False, or "
        msg += "use features of another layer."
        raise ValueError(msg)
    return half


def check_folder(folder: Path, needed: int) -> None:
    """Make the folder of the cache, and check that there is enough space for files.

    Args:
        folder: The folder.
        needed: Bytes that will be written.

    Raises:
        OSError: If the folder cannot be made or written to, or has too little space.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"The feature cache needs the folder {folder}, which cannot be written to ({error}). {CACHE_ADVICE}"
        raise OSError(msg) from error
    free = shutil.disk_usage(folder).free
    if needed > free:
        msg = f"The features need {needed / 1e9:.2f} GB in {folder}, but only {free / 1e9:.2f} GB are free there. "
        msg += f"Free some space, for example by deleting older files in that folder. {CACHE_ADVICE}"
        raise OSError(msg)

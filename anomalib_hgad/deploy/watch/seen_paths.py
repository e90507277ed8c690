# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A set of paths that takes 8 bytes for each: a line shows millions of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST_MERGED = 4096
"""Paths that are kept in a set of Python before they are merged into the array; later an eighth of its length."""


class SeenPaths:
    """The hashes of paths.

    Of a million paths two have the same hash of 64 bits with a probability of 3e-8. Python draws its hashes anew in
    every process, so that the next one would tell these two apart.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, dtype=np.int64)
        self._newest: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._newest)

    def add(self, path: str) -> None:
        """Add a path that is not there yet."""
        self._newest.add(hash(path))
        if len(self._newest) >= max(LEAST_MERGED, len(self._sorted) // 8):
            newest = np.fromiter(self._newest, dtype=np.int64, count=len(self._newest))
            self._sorted = np.union1d(self._sorted, newest)
            self._newest = set()

    def unseen(self, paths: Sequence[str]) -> list[str]:
        """Those of some paths that are not there, in the same order."""
        hashes = np.fromiter(map(hash, paths), dtype=np.int64, count=len(paths))
        places = np.searchsorted(self._sorted, hashes).clip(max=len(self._sorted) - 1)
        is_old = self._sorted[places] == hashes if len(self._sorted) else np.zeros(len(paths), dtype=bool)
        return [
            path
            for path, value, old in zip(paths, hashes.tolist(), is_old.tolist(), strict=True)
            if not old and value not in self._newest
        ]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A set of paths that needs 8 bytes for each: a production line takes millions of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST_MERGED = 4096
"""Minimum size of the Python set of new paths before it is merged into the array; later an eighth of its length."""


class SeenPaths:
    """The hashes of paths.

    Two of a million paths have the same 64-bit hash with a probability of 3e-8. Python salts its hashes in every
    process, so that the next process would distinguish these two.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, dtype=np.int64)
        self._newest: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._newest)

    def add(self, path: str) -> None:
        """Add a path that is not in the set."""
        self._newest.add(hash(path))
        if len(self._newest) >= max(LEAST_MERGED, len(self._sorted) // 8):
            newest = np.fromiter(self._newest, dtype=np.int64, count=len(self._newest))
            self._sorted = np.union1d(self._sorted, newest)
            self._newest = set()

    def unseen(self, paths: Sequence[str]) -> list[str]:
        """Return the given paths that are not in the set, in the same order."""
        hashes = np.fromiter(map(hash, paths), dtype=np.int64, count=len(paths))
        places = np.searchsorted(self._sorted, hashes).clip(max=len(self._sorted) - 1)
        is_old = self._sorted[places] == hashes if len(self._sorted) else np.zeros(len(paths), dtype=bool)
        return [
            path
            for path, value, old in zip(paths, hashes.tolist(), is_old.tolist(), strict=True)
            if not old and value not in self._newest
        ]

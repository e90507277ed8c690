# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A set of paths, against Python's own."""

from __future__ import annotations

import tracemalloc

from anomalib_hgad.deploy.watch.seen_paths import SeenPaths


def test_is_what_a_set_is() -> None:
    """Beyond several merges, for paths that are there, are not, and are asked for before there is any."""
    seen, reference = SeenPaths(), set()
    assert seen.unseen(["a", "b"]) == ["a", "b"]
    for number in range(0, 30_000, 3):
        seen.add(f"/line/{number}.png")
        reference.add(f"/line/{number}.png")
        if number % 2500 == 0:
            asked = [f"/line/{other}.png" for other in range(number + 5)]
            assert seen.unseen(asked) == [path for path in asked if path not in reference]
    assert len(seen) == len(reference)
    assert seen.unseen([]) == []


def test_a_path_takes_few_bytes() -> None:
    """A set of strings takes 150 and more."""
    tracemalloc.start()
    try:
        seen = SeenPaths()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100_000):
            seen.add(f"/line/camera/{number:08}.png")
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(seen) == 100_000
    assert taken < 20 * 100_000

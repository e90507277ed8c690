# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which files hold features, and what precision they are kept in."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_hgad.models.hgad.feature_cache.store import FileFeatures, MemoryFeatures, is_intact, write_shard

SHAPES = ((3, 4, 4), (5, 2, 2))
RECORD = [("level0", "<f2", (3, 4, 4)), ("level1", "<f2", (5, 2, 2))]
"""Features of an image, as NumPy writes them."""

COUNT = 3


def save(path: Path, record: list[tuple[str, str, tuple[int, ...]]], count: int = COUNT) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(count, dtype=record))


def test_file_of_these_features_is_intact(tmp_path: Path) -> None:
    save(tmp_path / "by_hand.npy", RECORD)
    assert is_intact(tmp_path / "by_hand.npy", COUNT, SHAPES)
    levels = [torch.rand(COUNT, *shape) for shape in SHAPES]
    write_shard(tmp_path / "written.npy", COUNT, SHAPES, [levels])
    written = np.load(tmp_path / "written.npy")
    assert written.dtype == np.dtype(RECORD)
    for name, level in zip(("level0", "level1"), levels, strict=True):
        np.testing.assert_array_equal(written[name], level.numpy().astype(np.float16))


@pytest.mark.parametrize(
    "record",
    [
        [("level0", "<f4", (3, 4, 4)), ("level1", "<f4", (5, 2, 2))],
        [("level0", "<i2", (3, 4, 4)), ("level1", "<i2", (5, 2, 2))],
        [("level0", "<f2", (3, 4, 4)), ("level1", "<f2", (5, 4, 1))],
        [("level0", "<f2", (3, 4, 4)), ("level1", "<f2", (4, 2, 2))],
        RECORD[::-1],
        RECORD[:1],
        [*RECORD, ("level2", "<f2", (1, 1, 1))],
    ],
    ids=["float32", "int16", "grid", "channels", "order", "one level", "three levels"],
)
def test_file_of_other_features_is_not(tmp_path: Path, record: list[tuple[str, str, tuple[int, ...]]]) -> None:
    """Another type of numbers, another shape, or another number of levels, of as many images."""
    save(tmp_path / "features.npy", record)
    assert not is_intact(tmp_path / "features.npy", COUNT, SHAPES)


def test_plain_numbers_of_as_many_images_are_not(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.zeros(COUNT, np.float16))
    assert not is_intact(tmp_path / "features.npy", COUNT, SHAPES)


def test_archive_of_arrays_is_not(tmp_path: Path) -> None:
    with (tmp_path / "features.npy").open("wb") as file:
        np.savez(file, features=np.zeros(COUNT, dtype=RECORD))
    assert not is_intact(tmp_path / "features.npy", COUNT, SHAPES)


@pytest.mark.parametrize("count", [COUNT - 1, COUNT + 1])
def test_file_of_another_number_of_images_is_not(tmp_path: Path, count: int) -> None:
    save(tmp_path / "features.npy", RECORD, count)
    assert not is_intact(tmp_path / "features.npy", COUNT, SHAPES)


def test_features_of_files_are_float32_of_half_precision(tmp_path: Path) -> None:
    """1/3 has no exact form in binary: float16 keeps 10 bits of its fraction."""
    write_shard(tmp_path / "0.npy", 1, SHAPES, [[torch.full((1, *shape), 1 / 3) for shape in SHAPES]])
    for level, shape in zip(FileFeatures([tmp_path / "0.npy"])[0], SHAPES, strict=True):
        assert level.dtype == torch.float32
        assert torch.equal(level, torch.full(shape, 1365 / 4096))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_in_memory_keep_their_precision(dtype: torch.dtype) -> None:
    levels = [torch.rand(COUNT, *shape, dtype=dtype) for shape in SHAPES]
    features = MemoryFeatures(COUNT, SHAPES, dtype)
    features.fill([[level[:2] for level in levels], [level[2:] for level in levels]])
    for index in range(COUNT):
        for level, actual in zip(levels, features[index], strict=True):
            assert actual.dtype == dtype
            assert torch.equal(actual, level[index])


def test_files_that_are_deleted_in_a_training_are_read_on(tmp_path: Path) -> None:
    path = tmp_path / "key.npy"
    level = torch.rand(COUNT, *SHAPES[0]).half().float()
    write_shard(path, COUNT, SHAPES[:1], [[level]])
    features = FileFeatures([path])
    copy = pickle.dumps(features)  # as a worker gets it that is no copy of this process
    path.unlink()
    for index in range(COUNT):
        assert torch.equal(features[index][0], level[index])
    elsewhere = pickle.loads(copy)
    with pytest.raises(FileNotFoundError, match=r"key\.npy of the feature cache was deleted .* Start again"):
        elsewhere[0]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which images of a process are repetitions, against the images that PyTorch's sampler gives."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from anomalib_hgad.common.processes import are_repeated, gather_objects


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [1, 2, 7, 10, 12])
@pytest.mark.parametrize("in_batch_sampler", [False, True])
def test_every_image_counts_once(images: int, processes: int, in_batch_sampler: bool) -> None:
    """Round by round, each process gives one image; one that was given before is a repetition."""
    data = TensorDataset(torch.arange(images))
    given, repeated = [], []
    for rank in range(processes):
        sampler = DistributedSampler(data, processes, rank, shuffle=False)
        if in_batch_sampler:
            loader = DataLoader(data, batch_sampler=BatchSampler(sampler, 2, drop_last=False))
        else:
            loader = DataLoader(data, 2, sampler=sampler)
        given.append([])
        repeated.append([])
        for (batch,) in loader:
            repeated[-1] += are_repeated(loader, len(given[-1]), len(batch))
            given[-1] += batch.tolist()
    seen: set[int] = set()
    for turn in range(len(given[0])):
        for rank in range(processes):
            assert repeated[rank][turn] == (given[rank][turn] in seen), (rank, turn)
            seen.add(given[rank][turn])
    assert seen == set(range(images))


def test_nothing_is_repeated_in_one_process() -> None:
    loader = DataLoader(TensorDataset(torch.arange(3)), 2)
    assert are_repeated(loader, 0, 2) + are_repeated(loader, 2, 1) == [False] * 3


def test_one_process_gathers_what_is_its_own() -> None:
    own = {"scores": [0.5]}
    (gathered,) = gather_objects(own)
    assert gathered is own

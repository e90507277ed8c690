# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Communication between the processes of a distributed run."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, TypeVar, cast

from torch import distributed
from torch.utils.data import DataLoader, DistributedSampler

T = TypeVar("T")


def gather_objects(own: T) -> list[T]:
    """Gather an object from every process, in rank order; a collective call that all processes must make.

    Args:
        own: Object of this process, with its tensors in main memory.

    Returns:
        One object of each process.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    gathered: list[T] = [own] * distributed.get_world_size()
    distributed.all_gather_object(gathered, own)
    return gathered


def are_repeated(loader: DataLoader[Any], first: int, count: int) -> list[bool]:
    """Whether images are repetitions that pad the data, so that every process has the same number.

    Args:
        loader: Loader of the images of this process.
        first: Number of images it gave before.
        count: Number of images.

    Returns:
        Whether each of the next images is a repetition.
    """
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if not isinstance(sampler, DistributedSampler):
        return [False] * count
    # Process r of R gets the images r, r + R, r + 2 R and so on of a list that starts over at its end.
    images = len(cast("Sized", sampler.dataset))
    return [(first + number) * sampler.num_replicas + sampler.rank >= images for number in range(count)]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Values of a batch in the form that metrics need.

Dimensions: B images, height x width pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.nn import functional as F

from anomalib_hgad.data.batch import NO_CLASS

PIXEL_METRIC_SIZE = 256
"""Maps and masks of larger images are scaled down to this side for pixel metrics, which keep all pixels in memory."""


KeyT = TypeVar("KeyT")


def class_names_of(batch: Any) -> list[str | None] | None:  # noqa: ANN401 - of any datamodule
    """Return the class of every image, ``None`` for an image of no class; ``None`` if the batch has no classes."""
    if (names := getattr(batch, "class_name", None)) is None:
        return None
    if (class_index := getattr(batch, "class_index", None)) is None:
        return list(names)
    return [None if index == NO_CLASS else name for name, index in zip(names, class_index.tolist(), strict=True)]


def rows_of(values: Mapping[KeyT, torch.Tensor], chosen: Sequence[bool]) -> dict[KeyT, torch.Tensor]:
    """Select the values of the chosen images; none at all if no image is chosen."""
    rows = torch.tensor(chosen)
    return {key: value[rows.to(value.device)] for key, value in values.items()} if any(chosen) else {}


def between_0_and_1(values: torch.Tensor) -> torch.Tensor:
    """Map scores to between 0 and 1 in the same order, in float64, in which close ones stay distinct.

    torchmetrics treats a batch with values outside as logits, and maps only this batch to between 0 and 1.
    """
    values = values.double()
    return 0.5 + 0.5 * values / (1 + values.abs())


def scaled_down(values: torch.Tensor) -> torch.Tensor:
    """Scale maps and masks, shape (B, height, width), down to :data:`PIXEL_METRIC_SIZE`; leave other fields."""
    is_map = values.ndim >= 3  # batch, height, width
    if not is_map or max(values.shape[-2:]) <= PIXEL_METRIC_SIZE:
        return values
    scale = PIXEL_METRIC_SIZE / max(values.shape[-2:])
    size = [round(length * scale) for length in values.shape[-2:]]
    maps = values.flatten(0, -3).unsqueeze(1)
    if values.is_floating_point():
        return F.interpolate(maps, size=size, mode="area").squeeze(1)
    return F.interpolate(maps.float(), size=size, mode="nearest-exact").squeeze(1).to(values.dtype)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Values of a batch as metrics take them.

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
    """Class of every image of a batch, ``None`` for one of none of the classes; ``None`` if the batch carries none."""
    if (names := getattr(batch, "class_name", None)) is None:
        return None
    if (class_index := getattr(batch, "class_index", None)) is None:
        return list(names)
    return [None if index == NO_CLASS else name for name, index in zip(names, class_index.tolist(), strict=True)]


def rows_of(values: Mapping[KeyT, torch.Tensor], chosen: Sequence[bool]) -> dict[KeyT, torch.Tensor]:
    """Values of the chosen images; none at all if no image is."""
    rows = torch.tensor(chosen)
    return {key: value[rows.to(value.device)] for key, value in values.items()} if any(chosen) else {}


def between_0_and_1(values: torch.Tensor) -> torch.Tensor:
    """Scores in their order, in float64, in which close ones stay apart.

    torchmetrics takes a batch with values outside for logits, and brings this batch alone between 0 and 1.
    """
    values = values.double()
    return 0.5 + 0.5 * values / (1 + values.abs())


def scaled_down(values: torch.Tensor) -> torch.Tensor:
    """Maps and masks, shape (B, height, width), brought down to :data:`PIXEL_METRIC_SIZE`; other fields as they are."""
    is_map = values.ndim >= 3  # batch, height, width
    if not is_map or max(values.shape[-2:]) <= PIXEL_METRIC_SIZE:
        return values
    scale = PIXEL_METRIC_SIZE / max(values.shape[-2:])
    size = [round(length * scale) for length in values.shape[-2:]]
    maps = values.flatten(0, -3).unsqueeze(1)
    if values.is_floating_point():
        return F.interpolate(maps, size=size, mode="area").squeeze(1)
    return F.interpolate(maps.float(), size=size, mode="nearest-exact").squeeze(1).to(values.dtype)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a transform is made of, and the size that it brings images to."""

from __future__ import annotations

from anomalib.data.transforms import ExportableCenterCrop
from torchvision.transforms.v2 import CenterCrop, Compose, Resize, Transform


def steps(transform: Transform | None) -> list[Transform]:
    """The transforms that a transform is made of."""
    if transform is not None and type(transform) is Compose:
        return [step for part in transform.transforms for step in steps(part)]
    return [] if transform is None else [transform]


def last_size(transform: Transform | None) -> tuple[int, int] | None:
    """Height and width that a transform ends with; ``None`` if it leaves the image's, or one side of it."""
    sizes = [step.size for step in steps(transform) if isinstance(step, CenterCrop | ExportableCenterCrop | Resize)]
    return (sizes[-1][0], sizes[-1][1]) if sizes and sizes[-1] is not None and len(sizes[-1]) == 2 else None

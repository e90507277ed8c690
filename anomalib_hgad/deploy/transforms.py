# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a transform is made of, the size that it brings images to, and its form for exported graphs."""

from __future__ import annotations

from typing import Any

import torch
from anomalib.data.transforms import ExportableCenterCrop
from anomalib.pre_processing.utils.transform import get_exportable_transform
from torch.nn import functional as F
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Resize, Transform

SMOOTHED = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
"""Interpolations that torchvision does with antialiasing."""


def steps(transform: Transform | None) -> list[Transform]:
    """The transforms that a transform is made of."""
    if transform is not None and type(transform) is Compose:
        return [step for part in transform.transforms for step in steps(part)]
    return [] if transform is None else [transform]


def last_size(transform: Transform | None) -> tuple[int, int] | None:
    """Height and width that a transform ends with; ``None`` if it leaves the image's, or one side of it."""
    sizes = [step.size for step in steps(transform) if isinstance(step, CenterCrop | ExportableCenterCrop | Resize)]
    return (sizes[-1][0], sizes[-1][1]) if sizes and sizes[-1] is not None and len(sizes[-1]) == 2 else None


def check_antialiasing(transform: Transform | None) -> None:
    """Check that an exported graph can resize images as a transform does.

    Args:
        transform: The transform.

    Raises:
        ValueError: If the graph would resize without the antialiasing.
    """
    for step in steps(transform):
        smoothed = isinstance(step, Resize) and step.antialias and InterpolationMode(step.interpolation) in SMOOTHED
        if smoothed and not _is_antialiased(step):
            msg = (
                "A graph resizes with antialiasing to a height and a width, bilinearly, alone: expected such a Resize, "
            )
            msg += f"got {step}. Take one, or antialias=False, and train anew."
            raise ValueError(msg)


def _is_antialiased(step: Transform) -> bool:
    return (
        isinstance(step, Resize)
        and step.size is not None
        and len(step.size) == 2
        and bool(step.antialias)
        and InterpolationMode(step.interpolation) == InterpolationMode.BILINEAR
    )


class AntialiasedResize(Transform):
    """Antialiased bilinear resizing as two matrix products, which every runtime can do.

    ONNX's Resize has an attribute for the antialiasing, but OpenVINO ignores it without a word. Scores were
    measured to be 0.49 off with it.

    The numbers are those of ``torch.nn.functional.interpolate(..., mode="bilinear", antialias=True)`` up to rounding.

    Args:
        size: Height and width of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Resize.

        Args:
            inpt: Images, shape (..., height, width).
            params: Unused.

        Returns:
            Images, shape (..., *size).
        """
        del params
        by_row, by_column = (
            resize_weights(inpt.shape[axis], size, like=inpt) for axis, size in zip((-2, -1), self.size, strict=True)
        )
        return by_row @ (inpt @ by_column.T)


class ResizeOperator(AntialiasedResize):
    """The same resizing as one operator, for runtimes that do not ignore its antialiasing."""

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Resize, as :class:`AntialiasedResize`; images have the shape (B, channels, height, width)."""
        del params
        return F.interpolate(inpt, size=self.size, mode="bilinear", antialias=True)


def exportable(transform: Transform | None, resize: type[AntialiasedResize] = AntialiasedResize) -> Transform | None:
    """Form of a transform that can be exported and gives the same images.

    anomalib's own leaves out the antialiasing of every Resize: a model would see other images on the line than those it
    was trained and tested on.

    Args:
        transform: The transform.
        resize: What takes the place of antialiased bilinear Resizes to a height and a width.

    Returns:
        A copy, with the rest as anomalib exports it.
    """
    if transform is None:
        return None
    return Compose(
        [
            resize((step.size[0], step.size[1])) if _is_antialiased(step) else get_exportable_transform(step)
            for step in steps(transform)
        ]
    )


def resize_weights(size: int, new_size: int, like: torch.Tensor) -> torch.Tensor:
    """Share of every old pixel in every new one, along one side: a triangle as wide as two pixels of the coarser grid.

    Args:
        size: Number of old pixels.
        new_size: Number of new ones.
        like: Tensor whose device and dtype the weights take.

    Returns:
        Weights whose rows sum to 1, shape (new_size, size).
    """
    pixels = torch.arange(size, device=like.device).to(like) + 0.5
    step = (pixels[-1] + 0.5) / new_size  # a tensor: in an exported graph the size itself has no value to compare
    centers = (torch.arange(new_size, device=like.device).to(like) + 0.5) * step
    distances = (pixels - centers.unsqueeze(1)).abs() / step.clamp(min=1)
    weights = (1 - distances).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)

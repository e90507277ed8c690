# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Steps and output size of a transform, and its form for exported graphs."""

from __future__ import annotations

from typing import Any

import torch
from anomalib.data.transforms import ExportableCenterCrop
from anomalib.pre_processing.utils.transform import get_exportable_transform
from torch.nn import functional as F
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Normalize, Resize, Transform

SMOOTHED = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
"""Interpolations that torchvision antialiases."""


def steps(transform: Transform | None) -> list[Transform]:
    """The steps of a transform, with those of nested ``Compose`` transforms."""
    if transform is not None and type(transform) is Compose:
        return [step for part in transform.transforms for step in steps(part)]
    return [] if transform is None else [transform]


def last_size(transform: Transform | None) -> tuple[int, int] | None:
    """Height and width of a transform's output; ``None`` if it depends on the size of the image."""
    sizes = [step.size for step in steps(transform) if isinstance(step, CenterCrop | ExportableCenterCrop | Resize)]
    return (sizes[-1][0], sizes[-1][1]) if sizes and sizes[-1] is not None and len(sizes[-1]) == 2 else None


def check_antialiasing(transform: Transform | None) -> None:
    """Check that an exported graph can resize images like a transform.

    Args:
        transform: The transform.

    Raises:
        ValueError: If the graph would resize without antialiasing.
    """
    for step in steps(transform):
        smoothed = isinstance(step, Resize) and step.antialias and InterpolationMode(step.interpolation) in SMOOTHED
        if smoothed and not _is_antialiased(step):
            msg = (
                "An exported graph supports antialiasing only for bilinear resizing to a height and a width: expected "
            )
            msg += f"such a Resize, got {step}. Use one, or antialias=False, and train again."
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
    """Antialiased bilinear resizing as two matrix products, which every runtime supports.

    ONNX's Resize has an attribute for antialiasing, but OpenVINO ignores it without a warning, which changed scores by
    up to 0.49.

    The result equals ``torch.nn.functional.interpolate(..., mode="bilinear", antialias=True)`` up to rounding.

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


class PlaneNormalize(Normalize):
    """Normalisation of the channels as rows of pixels.

    OpenVINO's resizing leaves the channels of a pixel beside each other, and it normalises three numbers at a time
    there; rows of all pixels of a channel take a tenth of the time.
    """

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Normalise.

        Args:
            inpt: Images, shape (..., channels, height, width).
            params: Unused.

        Returns:
            Images of the same shape.
        """
        del params
        mean, std = (inpt.new_tensor(values).unsqueeze(-1) for values in (self.mean, self.std))
        return ((inpt.flatten(-2) - mean) / std).unflatten(-1, inpt.shape[-2:])


class ResizeOperator(AntialiasedResize):
    """The same resizing as one operator, for runtimes that support antialiasing."""

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Resize, as :class:`AntialiasedResize`; images have the shape (B, channels, height, width)."""
        del params
        return F.interpolate(inpt, size=self.size, mode="bilinear", antialias=True)


def exportable(transform: Transform | None, resize: type[AntialiasedResize] = AntialiasedResize) -> Transform | None:
    """Exportable form of a transform that produces the same images.

    anomalib's own omits the antialiasing of every Resize: a deployed model would get other images than those it was
    trained and tested on.

    Args:
        transform: The transform.
        resize: Replacement of antialiased bilinear Resizes to a height and a width.

    Returns:
        A copy, with all other steps as exported by anomalib.
    """
    if transform is None:
        return None
    return Compose(
        [
            resize((step.size[0], step.size[1])) if _is_antialiased(step) else get_exportable_transform(_planes(step))
            for step in steps(transform)
        ]
    )


def _planes(step: Transform) -> Transform:
    return PlaneNormalize(step.mean, step.std) if type(step) is Normalize else step


def resize_weights(size: int, new_size: int, like: torch.Tensor) -> torch.Tensor:
    """Weight of every old pixel in every new one, along one axis: a triangle as wide as two pixels of the coarser grid.

    Args:
        size: Number of old pixels.
        new_size: Number of new pixels.
        like: Tensor with the device and dtype for the weights.

    Returns:
        Weights whose rows sum to 1, shape (new_size, size).
    """
    pixels = torch.arange(size, device=like.device).to(like) + 0.5
    step = (pixels[-1] + 0.5) / new_size  # a tensor: in an exported graph the size itself has no value to compare
    centers = (torch.arange(new_size, device=like.device).to(like) + 0.5) * step
    distances = (pixels - centers.unsqueeze(1)).abs() / step.clamp(min=1)
    weights = (1 - distances).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)

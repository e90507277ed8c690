# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Steps and output size of a transform, and its form for exported graphs."""

from __future__ import annotations

from anomalib.data.transforms import ExportableCenterCrop
from anomalib.pre_processing.utils.transform import get_exportable_transform
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Resize, Transform

from anomalib_hgad.deploy.resizing import AntialiasedResize

SMOOTHED = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
"""Interpolations that torchvision antialiases."""


def steps(transform: Transform | None) -> list[Transform]:
    """Return the steps of a transform, including those of nested ``Compose`` transforms."""
    if transform is not None and type(transform) is Compose:
        return [step for part in transform.transforms for step in steps(part)]
    return [] if transform is None else [transform]


def last_size(transform: Transform | None) -> tuple[int, int] | None:
    """Height and width of a transform's output; ``None`` if it depends on the size of the image."""
    sizes = [step.size for step in steps(transform) if isinstance(step, CenterCrop | ExportableCenterCrop | Resize)]
    return (sizes[-1][0], sizes[-1][1]) if sizes and sizes[-1] is not None and len(sizes[-1]) == 2 else None


def takes_any_size(transform: Transform | None) -> bool:
    """Whether a graph that begins with a transform can take images of any size.

    It can if a Resize to a height and a width comes before all other steps that depend on the size. For other steps,
    such as a Resize of the shorter side, PyTorch's exporter fixes the size of its example image for all images.

    Args:
        transform: The transform.
    """
    sized = [step for step in steps(transform) if isinstance(step, CenterCrop | ExportableCenterCrop | Resize)]
    return bool(sized) and isinstance(sized[0], Resize) and sized[0].size is not None and len(sized[0].size) == 2


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


def exportable(transform: Transform | None) -> Transform | None:
    """Return the exportable form of a transform, which produces the same images.

    anomalib's own form omits the antialiasing of every Resize: a deployed model would get other images than those it
    was trained and tested on.

    Args:
        transform: The transform.

    Returns:
        A copy, with all other steps as exported by anomalib.
    """
    if transform is None:
        return None
    return Compose(
        [
            AntialiasedResize((step.size[0], step.size[1])) if _is_antialiased(step) else get_exportable_transform(step)
            for step in steps(transform)
        ]
    )

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Converts arrays to the input of an exported model."""

from __future__ import annotations

import numpy as np

CHANNELS = {1, 3, 4}
"""Numbers of channels that an array may have."""

ROUNDING = 1e-3
"""How far beyond 0 and 1 floating-point numbers may be: a resized white image can have 1.0000001."""


def as_input(image: np.ndarray) -> np.ndarray:
    """Convert an array to the input of an exported model.

    Args:
        image: Integers from 0 to 255 (uint8), floating-point numbers from 0 to 1, or booleans, of shape (height,
            width), (height, width, channels), (channels, height, width), (B, channels, height, width) or (B, height,
            width, channels), with 1 channel for grey, 3 for RGB or 4 for RGB and an alpha channel, which is ignored.

    Returns:
        A copy, from 0 to 1, float32, shape (B, 3, height, width). Numbers beyond 0 and 1 by no more than
        :data:`ROUNDING` become 0 and 1.

    Raises:
        ValueError: If it has another dtype, range or shape.
    """
    is_whole = image.dtype == np.uint8
    is_known = is_whole or image.dtype == bool or np.issubdtype(image.dtype, np.floating)
    if not (is_known and image.size and image.ndim in {2, 3, 4}):
        raise _wrong(image)
    images = image[None] if image.ndim == 3 else image[None, None] if image.ndim == 2 else image
    is_first = images.shape[1] in CHANNELS and (image.ndim != 3 or images.shape[-1] not in CHANNELS)
    if images.shape[-1] in CHANNELS and not is_first:
        images = images.transpose(0, 3, 1, 2)
    if images.shape[1] not in CHANNELS:
        raise _wrong(image)
    images = np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images[:, :3]
    made = np.array(images, dtype=np.float32, order="C")
    if is_whole:
        return made / np.float32(255)
    low, high = made.min(), made.max()
    if not np.isfinite([low, high]).all():
        return made  # the score of the model shows it
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise _wrong(image, f" from {low:.4g} to {high:.4g}")
    return made.clip(0, 1, out=made)


def _wrong(image: np.ndarray, values: str = "") -> ValueError:
    return ValueError(
        "Expected uint8 from 0 to 255, booleans, or floating-point numbers from 0 to 1, of shape (height, width), or "
        "with 1, 3 or 4 channels first or last, or a batch of such images, got "
        f"{image.dtype} of shape {image.shape}{values}. Convert it."
    )

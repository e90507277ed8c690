# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of predictions: the image with its anomaly map and the outline of the predicted mask."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from anomalib_hgad.deploy.watch.scorer import Scored

LONGER_SIDE = 512
"""Maximum length of the longer side of a picture, in pixels."""

SUFFIX = ".jpg"

MOST_BYTES = 255
"""Bytes that the name of a file may have in most file systems."""

EDGE = (255, 255, 255)
"""Colour of the outline of the mask, which does not occur in the map."""


def picture_path(image: Path, root: Path, folder: Path) -> Path:
    """Path of the picture of an image.

    Args:
        image: The image.
        root: The watched folder.
        folder: The folder of the pictures.

    Returns:
        The same relative path with ``.jpg`` appended, so that ``a.png`` and ``a.tif`` have different pictures. The end
        of a name that would be too long is replaced by its checksum.
    """
    place = folder / image.relative_to(root)
    name = place.name
    if len(os.fsencode(name)) + len(SUFFIX) > MOST_BYTES:
        mark = f"-{hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()}"
        while len(os.fsencode(name)) + len(mark) + len(SUFFIX) > MOST_BYTES:
            name = name[:-1]
        name += mark
    return place.with_name(name + SUFFIX)


def draw(pixels: np.ndarray, scored: Scored) -> Image.Image:
    """Draw an image with its anomaly map and the outline of its mask.

    Args:
        pixels: RGB, uint8, shape (height, width, 3).
        scored: Prediction for the image, with map and mask if the model has them.

    Returns:
        The picture.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE))
    if scored.anomaly_map is not None:
        heat = Image.fromarray(heat_colours(scored.anomaly_map)).resize(picture.size, Image.Resampling.BILINEAR)
        picture = Image.blend(picture, heat, 0.4)
    if scored.pred_mask is not None:
        mask = Image.fromarray(np.uint8(255) * scored.pred_mask.astype(np.uint8)).resize(picture.size)
        wide, narrow = (mask.filter(each(3)) for each in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
        picture.paste(EDGE, mask=ImageChops.difference(wide, narrow))
    return picture


def heat_colours(anomaly_map: np.ndarray) -> np.ndarray:
    """Colours of an anomaly map, from blue over green to red.

    Args:
        anomaly_map: From 0 to 1 with the threshold at 0.5, so that a colour means the same in all pictures; a map of
            other numbers is scaled from its minimum (blue) to its maximum (red).

    Returns:
        RGB, uint8, shape (height, width, 3).
    """
    values = anomaly_map.astype(np.float32)
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    bands = 1.5 - np.abs(4 * values[..., None] - np.array([3, 2, 1], dtype=np.float32))
    return (255 * bands.clip(0, 1)).astype(np.uint8)

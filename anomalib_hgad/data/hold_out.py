# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Splits held-out images off the training images."""

from __future__ import annotations

from copy import copy

from anomalib.data import AnomalibDataset


def hold_out(images: AnomalibDataset, share: float) -> tuple[AnomalibDataset, AnomalibDataset | None]:
    """Split off a fraction of the images of every class.

    The held-out images are spread evenly over the file names of the class: the same images give the same split.

    Args:
        images: The images. Their ``samples`` have a column ``class_index``.
        share: Fraction of the images of each class. At least one image is held out, and at least one is kept.

    Returns:
        The remaining images and the held-out images; ``None`` instead of the latter if there are none.
    """
    samples = images.samples
    held_out: list[int] = []
    for _, rows in samples.groupby("class_index"):
        count = min(max(1, round(share * len(rows))), len(rows) - 1) if share else 0
        held_out.extend(rows.index[[(2 * number + 1) * len(rows) // (2 * count) for number in range(count)]])
    if not held_out:
        return images, None
    kept, taken = copy(images), copy(images)
    kept.samples, taken.samples = samples.drop(index=held_out), samples.loc[held_out]
    return kept, taken

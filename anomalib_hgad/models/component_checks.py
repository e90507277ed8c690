# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of the pre- and post-processors that a user gives a model."""

from __future__ import annotations

import logging
from itertools import takewhile

from anomalib.data import AnomalibDataModule
from lightning.pytorch import LightningDataModule
from torchvision.transforms.v2 import Grayscale, Identity, Normalize, Resize, ToDtype, ToImage, ToPureTensor, Transform

from anomalib_hgad.deploy.transforms import last_size, steps

logger = logging.getLogger(__name__)

OF_SINGLE_PIXELS = (Grayscale, Identity, Normalize, ToDtype, ToImage, ToPureTensor)
"""Transforms whose result is the same before and after a resizing."""


def check_sensitivities(post_processor: object) -> None:
    """Check how sensitive a post-processor is: anomalib takes any number, and 50 calls all images anomalous.

    Args:
        post_processor: The post-processor.

    Raises:
        ValueError: If a sensitivity is not between 0 and 1.
    """
    for name in ("image_sensitivity", "pixel_sensitivity"):
        value = getattr(post_processor, name, 0.5)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            msg = f"post_processor: expected {name} from 0 to 1, got {value!r}. 0.5 leaves the threshold where it is; "
            msg += "more calls more images or pixels anomalous."
            raise ValueError(msg)


def warn_of_other_size(transform: Transform | None, image_size: tuple[int, int]) -> None:
    """Warn that a pre-processor makes images of another size than the one that the model is set to.

    Args:
        transform: Transform of the pre-processor.
        image_size: Height and width in the settings of the model.
    """
    size = last_size(transform)
    if size not in {None, image_size}:
        logger.warning(
            "The pre-processor makes images of %s, but image_size is %s, which sets the smoothing of the maps and the "
            "size of exported graphs. Give the model image_size=%s.",
            size,
            image_size,
            size,
        )


def check_resized_first(transform: Transform | None, datamodule: LightningDataModule | None) -> None:
    """Check that a pre-processor does nothing to a whole image before it resizes it.

    anomalib's datamodules resize images when they read them, to the first size of the pre-processor: it would crop, for
    example, resized images in a training and a test, and images of the original size in a prediction of files.

    Args:
        transform: Transform of the pre-processor.
        datamodule: Data of the trainer.

    Raises:
        ValueError: If another transform comes before.
    """
    if not isinstance(datamodule, AnomalibDataModule):
        return
    all_steps = steps(transform)
    before = list(takewhile(lambda step: not isinstance(step, Resize), all_steps))
    earlier = [type(step).__name__ for step in before if not isinstance(step, OF_SINGLE_PIXELS)]
    if earlier and len(before) < len(all_steps):
        msg = f"pre_processor: {', '.join(earlier)} comes before Resize, but anomalib's datamodules resize images when "
        msg += "they read them: a test would score other images than a prediction of files. Put Resize first, or crop "
        msg += "the files."
        raise ValueError(msg)

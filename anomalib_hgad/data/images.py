# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Reads images; every error names the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from anomalib.data import ImageItem, PredictDataset
from anomalib.data.utils import read_image
from PIL import Image
from torchvision.transforms.v2 import Transform

from anomalib_hgad.data.folders import common_folder, is_hidden, listed
from anomalib_hgad.data.reading import check_depth, naming_errors


def check_finite(images: torch.Tensor, paths: Sequence[str] | None) -> None:
    """Reject images with NaN or infinite values, whose scores would be meaningless.

    Args:
        images: Images in main memory, shape (B, 3, height, width).
        paths: Their files, if known.

    Raises:
        ValueError: If an image has such a value.
    """
    # A sum is not finite if a term is not, and is much faster than a test of each term.
    wrong = (~images.sum(dim=(1, 2, 3)).isfinite()).nonzero().squeeze(-1).tolist()
    if wrong:
        which = listed([paths[index] if paths else f"number {index} of the batch" for index in wrong])
        msg = f"Expected images of finite numbers, got NaN or infinity in {which}. Correct the dataset or the "
        msg += "augmentation."
        raise ValueError(msg)


def read_checked(path: str | Path) -> torch.Tensor:
    """Read an image of at most 8 bits.

    Args:
        path: The file.

    Returns:
        Values in [0, 1], shape (3, height, width).

    Raises:
        OSError: If it cannot be read, or has grey values of more than 8 bits. The message names it.
    """
    with naming_errors(path):
        with Image.open(path) as image:
            check_depth(image)
        return cast("torch.Tensor", read_image(path, as_tensor=True))


class NamingPredictDataset(PredictDataset):
    """anomalib's prediction dataset with errors that name the file, and without hidden files."""

    @classmethod
    def take_over(cls, dataset: PredictDataset, resize: Transform | None = None) -> None:
        """Convert a dataset that anomalib has created from a file or folder.

        Args:
            dataset: The dataset.
            resize: First transform of the model. Without it, images of different sizes are first resized to the largest
                of their batch, so that their scores depend on the others. Defaults to ``None``, no transform.
        """
        dataset.__class__ = cls
        if dataset.transform is None:
            dataset.transform = resize
        paths = [Path(path) for path in dataset.image_filenames]
        folder = common_folder(paths)
        dataset.image_filenames = [path for path in paths if len(paths) == 1 or not is_hidden(path, [folder])]

    def __getitem__(self, index: int) -> ImageItem:
        """Read an image.

        Args:
            index: Its number.

        Returns:
            The item.

        Raises:
            OSError: If the image cannot be read, or has grey values of more than 8 bits.
        """
        path = self.image_filenames[index]
        image = read_checked(path)
        return ImageItem(image=self.transform(image) if self.transform else image, image_path=str(path))

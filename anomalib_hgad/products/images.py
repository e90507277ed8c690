# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images of new products, and changed predictions for images of known ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from anomalib.data.utils import TestSplitMode, ValSplitMode

from anomalib_hgad.data.arguments import check_arguments, multi_class
from anomalib_hgad.data.folders import image_files
from anomalib_hgad.data.images import read_checked
from anomalib_hgad.data.layouts import normal_folders
from anomalib_hgad.data.letters import composed
from anomalib_hgad.data.multi_class import MultiClass
from anomalib_hgad.data.sources import check_names
from anomalib_hgad.models.hgad.lightning_model import Hgad
from anomalib_hgad.models.hgad.torch_model import HgadModel


@dataclass(frozen=True)
class MovedImage:
    """An image that is assigned to another product than before.

    Attributes:
        path: Its file.
        before: The previously inferred product.
        after: The product that is inferred now.
    """

    path: Path
    before: str
    after: str


def product_images(data: dict[str, Any], name: str | None) -> MultiClass:
    """Images of one product or of several.

    Args:
        data: Arguments of :class:`~anomalib_hgad.MultiClass`; ``root`` may also be the folder of a single product.
        name: Name of the product, if there is one; ``None`` uses the name of its folder.

    Returns:
        The datamodule.

    Raises:
        ValueError: If an argument is unknown or has the wrong type, or if one name is given for several products.
        FileNotFoundError: If a folder or an image is missing.
    """
    check_arguments(data)
    datamodule = multi_class(_for_training_alone(data))
    if name is not None:
        if len(datamodule.sources) > 1:
            msg = (
                f"Expected one product for the name {name!r}, got {', '.join(datamodule.class_names)}. Leave the name "
            )
            msg += "out, or give the folder of one of them."
            raise ValueError(msg)
        check_names([composed(name)])
        datamodule.sources = [replace(datamodule.sources[0], name=composed(name))]
    return datamodule


def _for_training_alone(data: dict[str, Any]) -> dict[str, Any]:
    """Arguments that select all normal images, and turn the folder of a single product into a root and a category."""
    if data.get("root") is None or {"dataset", "datamodules"} & data.keys():
        return data
    # As written, except "." and "..": the product gets the name of a link, not that of its target.
    root = Path(os.path.abspath(data["root"]))  # noqa: PTH100 - which follows no links
    # All normal images are used for training, none for testing.
    arguments: dict[str, Any] = {"test_split_mode": TestSplitMode.NONE, "val_split_mode": ValSplitMode.NONE} | data
    if "categories" in data:
        return arguments
    one = {"root": root.parent, "categories": [root.name]}
    if normal_folders(root, data.get("normal_dir")):
        return arguments | one
    if root.is_dir() and any(file.parent == root for file in image_files(root)):
        return arguments | one | {"normal_dir": "."}
    return arguments


def images_of_known(folder: Path | None) -> list[Path]:
    """Images of known products.

    Args:
        folder: Their folder; ``None`` if there is none.

    Returns:
        The files.

    Raises:
        FileNotFoundError: If the folder has no images.
    """
    paths = [] if folder is None else image_files(folder)
    if folder is not None and not paths:
        msg = f"Expected images of known products in {folder}, found none. Correct known_images, or leave it out."
        raise FileNotFoundError(msg)
    return paths


@torch.no_grad()
def moved_images(before: HgadModel, model: Hgad, paths: Sequence[Path]) -> list[MovedImage]:
    """Find images of known products that are assigned to an added one.

    Args:
        before: The torch model before the products were added.
        model: The model with the added products.
        paths: Image files.

    Returns:
        The images.
    """
    transform = getattr(model.pre_processor, "transform", None)
    moved = []
    for path in paths:
        image = read_checked(path).unsqueeze(0)
        readings = before.read(before.encoder(image if transform is None else transform(image)))
        old, new = (int(of.class_posterior(readings).argmax()) for of in (before, model.model))
        if new >= before.num_classes:
            moved.append(MovedImage(path, model.class_names[old], model.class_names[new]))
    return moved

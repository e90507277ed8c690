# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Add products to a checkpoint, remove them, and list them."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.table import Table

from anomalib_hgad.common.terminal import console
from anomalib_hgad.data.letters import composed
from anomalib_hgad.evaluation.post_processing import labelled_above
from anomalib_hgad.evaluation.threshold import images_needed
from anomalib_hgad.models.hgad.added_classes import check_can_change, likely_to_move
from anomalib_hgad.models.hgad.calibration import PIXEL_LIMIT
from anomalib_hgad.models.hgad.fit_added import AddedClass
from anomalib_hgad.models.hgad.lightning_model import Hgad
from anomalib_hgad.models.hgad.products import write_checkpoint
from anomalib_hgad.products.images import MovedImage, images_of_known, moved_images, product_images

LISTED_IMAGES = 10
"""Maximum number of images that a summary lists."""

LONGEST_NAME = 255
"""Bytes that the name of a file may have."""

CONSOLE = console()


def add_product(
    ckpt_path: Path,
    data: dict[str, Any],
    name: str | None = None,
    output: Path | None = None,
    known_images: Path | None = None,
    accelerator: str = "cpu",
) -> None:
    """Add products to a trained Hgad from a few normal images, in seconds.

    For every image that the model assigns to a known product, scores, labels and thresholds stay the same, bit for bit.
    Export the new checkpoint again before you deploy it.

    Args:
        ckpt_path: Checkpoint of the model.
        data: Arguments of ``MultiClass``. ``root`` is the folder of a product, with ``train/good`` or normal images in
            it, or a folder of such folders.
        name: Name of the product, if there is one. ``None`` uses the name of its folder.
        output: The new checkpoint. ``None`` writes ``NAME-with-PRODUCTS.ckpt`` next to the old one.
        known_images: Folder with images of the products that the model knows, to check whether some are now assigned to
            a new product.
        accelerator: Lightning's accelerator.

    Raises:
        ValueError: If the model does not support more products, knows one of these already, or assigns an image to a
            known product.
        FileNotFoundError: If the checkpoint, a folder or an image is missing.
    """
    started = perf_counter()
    check_output(output)
    model = load(ckpt_path)
    check_can_change(model.model)
    paths = images_of_known(known_images)
    datamodule = product_images(data, name)
    before, known = deepcopy(model.model), model.class_names
    added = model.add_classes(datamodule, accelerator)
    path = output or beside(ckpt_path, "with", [row.name for row in added])
    write_checkpoint(model, ckpt_path, path)
    summarise(model, added, known, moved_images(before, model, paths))
    CONSOLE.print(f"Checkpoint of {len(model.class_names)} products: {path} ({perf_counter() - started:.1f} s)")


def remove_product(ckpt_path: Path, names: list[str], output: Path | None = None) -> None:
    """Remove products from a trained Hgad; all others keep their scores.

    Args:
        ckpt_path: Checkpoint of the model.
        names: The products to remove.
        output: The new checkpoint. ``None`` writes ``NAME-without-PRODUCTS.ckpt`` next to the old one.

    Raises:
        ValueError: If no product is named, if the model does not know one of them, or if none would be left.
        FileNotFoundError: If the checkpoint does not exist.
    """
    check_output(output)
    if not names:
        msg = "Expected the names of products to remove, got none. `anomalib-hgad list-products` lists them."
        raise ValueError(msg)
    model = load(ckpt_path)
    # Unicode has two forms of some names, and a checkpoint identifies its products by name.
    removed = [name if name in model.class_names else composed(name) for name in dict.fromkeys(names)]
    for name in removed:
        model.remove_class(name)
    path = output or beside(ckpt_path, "without", removed)
    write_checkpoint(model, ckpt_path, path)
    CONSOLE.print(f"Checkpoint of {len(model.class_names)} products: {path}")


def list_products(ckpt_path: Path) -> None:
    """List the products of a checkpoint of Hgad: number of images, date added and limits.

    Args:
        ckpt_path: Checkpoint of the model.

    Raises:
        ValueError: If the file is not a checkpoint of Hgad.
        FileNotFoundError: If the file does not exist.
    """
    model = load(ckpt_path)
    calibration, novelty = model.model.calibration, model.model.novelty
    thresholds = labelled_above(model.post_processor) - calibration.class_thresholds.shift
    table = Table(caption="Limits of scores before all products are put on one scale. Typicality: nats per dimension.")
    for heading in ("product", "images", "since", "anomalous above", "pixels above", "unknown below typicality"):
        table.add_column(heading, justify="left" if heading in {"product", "since"} else "right", overflow="fold")
    for index, name in enumerate(model.class_names):
        record = model.labels.records.get(name)
        cells = ["–", "–"] if record is None else [str(record.images), record.date]
        limits = [
            calibration.location[index] + thresholds[index] * calibration.spread[index],
            None
            if model.pixel_limit is None
            else calibration.pixel_location[index] + PIXEL_LIMIT * calibration.pixel_spread[index],
            novelty.location[index] - novelty.margin[index],
        ]
        table.add_row(name, *cells, *("–" if limit is None or limit.isnan() else f"{limit:.3f}" for limit in limits))
    CONSOLE.print(table)


def check_output(output: Path | None) -> None:
    """Check at the start that a new checkpoint can be a file at a path.

    Args:
        output: The path, if it was given.

    Raises:
        IsADirectoryError: If it is a folder.
    """
    if output is not None and output.is_dir():
        msg = (
            f"Expected a file for the new checkpoint as output, got the folder {output}. Give {output / 'model.ckpt'}."
        )
        raise IsADirectoryError(msg)


def beside(ckpt_path: Path, word: str, names: Sequence[str]) -> Path:
    """Path of a new checkpoint next to another one: with the names of products, or their number if these are too long.

    Args:
        ckpt_path: The other checkpoint.
        word: Word between its name and these.
        names: Names of the products.
    """
    made = f"{ckpt_path.stem}-{word}-{'-'.join(names)}.ckpt"
    if len(made.encode()) > LONGEST_NAME:
        made = f"{ckpt_path.stem}-{word}-{len(names)}-products.ckpt"
    return ckpt_path.with_name(made)


def load(ckpt_path: Path) -> Hgad:
    """Load the model of a checkpoint.

    Args:
        ckpt_path: The checkpoint.

    Returns:
        The model, on the CPU.

    Raises:
        ValueError: If the file is not a checkpoint of Hgad.
        FileNotFoundError: If the file does not exist.
    """
    if not ckpt_path.is_file():
        msg = (
            f"No checkpoint at {ckpt_path}. `anomalib train --model Hgad` writes one into weights/lightning of its run."
        )
        raise FileNotFoundError(msg)
    return Hgad.load_from_checkpoint(ckpt_path, map_location="cpu").eval()


def summarise(model: Hgad, added: list[AddedClass], known: list[str], moved: list[MovedImage]) -> None:
    """Print what was added, and what to check before use.

    Args:
        model: The model with the new products.
        added: Measurements of the new products.
        known: Products that the model knew before.
        moved: Images of these that are now assigned to a new product.
    """
    location, margin = (values[: len(known)] for values in (model.model.novelty.location, model.model.novelty.margin))
    least = int(location.argmin())
    for row in added:
        CONSOLE.print(
            f"Added {row.name}: {row.images} images. Unseen images have a typicality of {row.typicality:.2f} nats per "
            f"dimension; those of the other products {location.min():.2f} to {location.max():.2f}."
        )
        if row.typicality < location[least] - margin[least]:
            CONSOLE.print(
                f"  The model fits {row.name} worse than any of its products. Train it with all of them, for example "
                "with `anomalib train --ckpt_path` and this checkpoint, and compare."
            )
        own = model.model.calibration.class_thresholds
        rate = max(own.rates) if own.shift.any() else 0.0
        if rate and row.images < (needed := images_needed(rate)):
            CONSOLE.print(
                f"  {row.images} images are too few for its own threshold with a false-alarm rate of {rate:.3g}: give "
                f"{needed} or more."
            )
        for other, count in row.taken_for.items():
            CONSOLE.print(f"  {count} of them would be assigned to {other} if they were not among the {row.images}.")
    for old, new in likely_to_move(model.model, len(known)):
        CONSOLE.print(
            f"Warning: {model.class_names[new]} looks so much like {model.class_names[old]} that normal images of the "
            "latter may be assigned to it. Give some as known_images to check, and train all products together if so."
        )
    if moved:
        CONSOLE.print(f"Warning: {len(moved)} images of known products are now assigned to a new one:")
        for image in moved[:LISTED_IMAGES]:
            CONSOLE.print(f"  {image.path}: {image.before} -> {image.after}")
        if len(moved) > LISTED_IMAGES:
            CONSOLE.print(f"  and {len(moved) - LISTED_IMAGES} more")

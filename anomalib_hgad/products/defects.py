# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Makes a checkpoint name the kinds of known defects, from a folder of images."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

from pathlib import Path
from typing import Any

from anomalib_hgad.data.arguments import check_arguments
from anomalib_hgad.data.folders import check_permission, image_files, listed, subfolders
from anomalib_hgad.data.layouts import GOOD, is_good, is_like_good
from anomalib_hgad.data.letters import composed
from anomalib_hgad.data.reserved_names import OTHER
from anomalib_hgad.data.sources import check_names
from anomalib_hgad.models.hgad.products import write_checkpoint
from anomalib_hgad.products.command import CONSOLE, check_output, load


def name_defects(ckpt_path: Path, data: dict[str, Any], output: Path | None = None) -> None:
    """Make a trained Hgad name the kinds of the defects that it detects, from a few images of each.

    Scores, labels and maps stay the same, bit for bit. Kinds that were given before for these products are replaced.

    Args:
        ckpt_path: Checkpoint of the model.
        data: ``root`` is a folder with images of known defects, ``PRODUCT/KIND/*.png``, or in MVTec layout,
            ``PRODUCT/test/KIND/*.png``.
        output: The new checkpoint. ``None`` writes ``NAME-with-defects.ckpt`` next to the old one.

    Raises:
        ValueError: If the model cannot name defects, does not know a product, or if the name of a kind is not allowed
            or suggests normal images.
        FileNotFoundError: If the checkpoint, a folder or an image is missing.
    """
    check_arguments(data)
    if data.keys() != {"root"} or data["root"] is None:
        msg = f"Expected the folder of known defects as data.root, and no other argument, got {sorted(data)}."
        raise ValueError(msg)
    check_output(output)
    model = load(ckpt_path)
    images = known_images(Path(data["root"]))
    for name, known in model.name_defects(images).items():
        counts = ", ".join(f"{kind} ({known.kinds.count(kind)})" for kind in images[name])
        right, of_all = known.by_the_others()
        trial = f" With each image left out, {right} of {of_all} would get their kind." if of_all else ""
        CONSOLE.print(f"{name}: {counts}.{trial} Images farther than {known.limit:.2f} from all kinds are {OTHER}.")
    path = output or ckpt_path.with_name(f"{ckpt_path.stem}-with-defects.ckpt")
    write_checkpoint(model, ckpt_path, path)
    CONSOLE.print(f"Checkpoint that names defects of {len(model.known_defects)} products: {path}")


def known_images(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Find images of known defects.

    Args:
        root: Folder with a subfolder for each product.

    Returns:
        Image files by product and kind.

    Raises:
        FileNotFoundError: If there is no product, or if a product or a kind has no images.
        ValueError: If two folders have one name, or if the name of a kind suggests normal images.
    """
    check_permission(root)
    folders = subfolders(root)
    if not folders:
        msg = f"Expected images of known defects in {root}, as PRODUCT/KIND/*.png; found no product folder."
        raise FileNotFoundError(msg)
    # Unicode has two forms of some names, and a checkpoint identifies its products by name.
    check_names([composed(product.name) for product in folders])
    return {composed(product.name): images_of_kinds(product) for product in folders}


def images_of_kinds(product: Path) -> dict[str, list[Path]]:
    """Find images of the known defects of a product; normal images among them are ignored, as in training.

    Args:
        product: Folder of the product.

    Returns:
        Image files by kind.

    Raises:
        FileNotFoundError: If the product or a kind has no images.
        ValueError: If two kinds have one name, or if the name of a kind suggests normal images.
    """
    folder = product / "test" if (product / "test").is_dir() else product
    places = subfolders(folder)
    kinds = {place: image_files(place) for place in places if not is_good(place)}
    for place in filter(is_good, places):
        CONSOLE.print(f"{product.name}: {len(image_files(place))} normal images in {place} are ignored.")
    if missing := [place for place, files in kinds.items() if not files] if kinds else [folder]:
        msg = f"Expected images of a kind of defect in {missing[0]}, as PRODUCT/KIND/*.png; found none. Add some, or "
        msg += "remove the folder."
        raise FileNotFoundError(msg)
    masks = product / "ground_truth"
    if alike := [place for place in kinds if is_like_good(place.name) and not image_files(masks / place.name)]:
        msg = f"{listed(alike)} seems to hold normal images by its name, but all folders except '{GOOD}' are kinds of "
        msg += f"defects. Rename it to '{GOOD}', or after the kind of defect."
        raise ValueError(msg)
    named = {composed(place.name): files for place, files in kinds.items()}
    if len(named) < len(kinds):
        msg = f"Two kinds of defects in {folder} have one name, with its letters written in two ways: "
        msg += f"{listed(list(kinds))}. Rename one, or put their images together."
        raise ValueError(msg)
    return named

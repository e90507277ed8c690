# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Makes a checkpoint name the kinds of known defects, from a folder of images."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

from pathlib import Path
from typing import Any

from anomalib_hgad.data.folders import check_permission, image_files, subfolders
from anomalib_hgad.data.reserved_names import OTHER
from anomalib_hgad.models.hgad.products import write_checkpoint
from anomalib_hgad.products.command import CONSOLE, load

GOOD = "good"
"""Folder of normal images next to those of the kinds."""


def name_defects(ckpt_path: Path, data: dict[str, Any], output: Path | None = None) -> None:
    """Make a trained Hgad name the kinds of the defects that it detects, from a few images of each.

    Scores, labels and maps stay the same, bit for bit. Kinds that were given before for these products are replaced.

    Args:
        ckpt_path: Checkpoint of the model.
        data: ``root`` is a folder with images of known defects, ``PRODUCT/KIND/*.png``, or in MVTec layout,
            ``PRODUCT/test/KIND/*.png``.
        output: The new checkpoint. ``None`` writes ``NAME-with-defects.ckpt`` next to the old one.

    Raises:
        ValueError: If the model cannot name defects, does not know a product, or if the name of a kind is not allowed.
        FileNotFoundError: If the checkpoint, a folder or an image is missing.
    """
    if data.keys() != {"root"}:
        msg = f"Expected the folder of known defects as data.root, and no other argument, got {sorted(data)}."
        raise ValueError(msg)
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
    """
    check_permission(root)
    images = {}
    for product in subfolders(root):
        folder = product / "test" if (product / "test").is_dir() else product
        kinds = {kind.name: image_files(kind) for kind in subfolders(folder)}
        if left_out := kinds.pop(GOOD, []):
            CONSOLE.print(f"{product.name}: {len(left_out)} normal images in {folder / GOOD} are ignored.")
        missing = [folder / kind for kind, files in kinds.items() if not files] if kinds else [folder]
        if missing:
            msg = (
                f"Expected images of a kind of defect in {missing[0]}, as PRODUCT/KIND/*.png; found none. Add some, or "
            )
            msg += "remove the folder."
            raise FileNotFoundError(msg)
        images[product.name] = kinds
    if not images:
        msg = f"Expected images of known defects in {root}, as PRODUCT/KIND/*.png; found no product folder."
        raise FileNotFoundError(msg)
    return images

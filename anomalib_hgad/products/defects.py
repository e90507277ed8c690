# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Let a checkpoint name the kinds of defects that are known, by a folder of images."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

from pathlib import Path
from typing import Any

from anomalib_hgad.data.folders import check_permission, image_files, subfolders
from anomalib_hgad.data.reserved_names import OTHER
from anomalib_hgad.models.hgad.products import write_checkpoint
from anomalib_hgad.products.command import CONSOLE, load

GOOD = "good"
"""Folder of normal images beside those of the kinds."""


def name_defects(ckpt_path: Path, data: dict[str, Any], output: Path | None = None) -> None:
    """Let a trained Hgad name the kinds of the defects that it finds, by a few images of each.

    Scores, labels and maps stay as they are, bit for bit. Kinds of these products that were given before are replaced.

    Args:
        ckpt_path: Checkpoint of the model.
        data: ``root`` is a folder with images of known defects, ``PRODUCT/KIND/*.png``, or in MVTec layout,
            ``PRODUCT/test/KIND/*.png``.
        output: The new checkpoint. ``None`` writes ``NAME-with-defects.ckpt`` beside the old one.

    Raises:
        ValueError: If the model cannot name defects, or does not know a product, or if a kind cannot be called so.
        FileNotFoundError: If the checkpoint, a folder or an image is missing.
    """
    if data.keys() != {"root"}:
        msg = f"Expected the folder of the known defects as data.root, and no other argument, got {sorted(data)}."
        raise ValueError(msg)
    model = load(ckpt_path)
    images = known_images(Path(data["root"]))
    for name, known in model.name_defects(images).items():
        counts = ", ".join(f"{kind} ({known.kinds.count(kind)})" for kind in images[name])
        right, of_all = known.by_the_others()
        trial = f" By the others alone, {right} of {of_all} would have their kind." if of_all else ""
        CONSOLE.print(f"{name}: {counts}.{trial} Farther than {known.limit:.2f} from all kinds is {OTHER}.")
    path = output or ckpt_path.with_name(f"{ckpt_path.stem}-with-defects.ckpt")
    write_checkpoint(model, ckpt_path, path)
    CONSOLE.print(f"Checkpoint that names defects of {len(model.known_defects)} products: {path}")


def known_images(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Find images of known defects.

    Args:
        root: Folder of folders of products.

    Returns:
        Files of the images by product and kind.

    Raises:
        FileNotFoundError: If a folder, or all images of a product or a kind are missing.
    """
    check_permission(root)
    images = {}
    for product in subfolders(root):
        folder = product / "test" if (product / "test").is_dir() else product
        kinds = {kind.name: image_files(kind) for kind in subfolders(folder)}
        if left_out := kinds.pop(GOOD, []):
            CONSOLE.print(f"{product.name}: {len(left_out)} images in {folder / GOOD} are left out, as normal ones.")
        missing = [folder / kind for kind, files in kinds.items() if not files] if kinds else [folder]
        if missing:
            msg = (
                f"Expected images of a kind of defect in {missing[0]}, as PRODUCT/KIND/*.png; found none. Add some, or "
            )
            msg += "leave the folder out."
            raise FileNotFoundError(msg)
        images[product.name] = kinds
    if not images:
        msg = f"Expected images of known defects in {root}, as PRODUCT/KIND/*.png; found no folder of a product."
        raise FileNotFoundError(msg)
    return images

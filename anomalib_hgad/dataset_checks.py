# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What is wrong with the images of a class, in words that tell what to do.

Files are opened, but pixels are not read: 10 000 images take seconds.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import LabelName
from anomalib.utils.path import generate_output_filename
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from .image_files import UNREADABLE, check_depth

LISTED_FILES = 5


def check_class(class_name: str, train: pd.DataFrame | None, evaluation: Sequence[pd.DataFrame]) -> bool:
    """Check the images and masks of one class.

    Args:
        class_name: Name of the class, for the messages.
        train: Samples to train on, with columns ``image_path``, ``label_index`` and ``mask_path``, if there are any.
        evaluation: Tables of samples to validate and to test on, with the same columns.

    Returns:
        Whether the class has masks.

    Raises:
        ValueError: If there is no normal training image, if a file cannot be read, if some anomalous images have a mask
            and others none, or if a mask does not have its image's size.
    """
    if train is None or not (train["label_index"] == LabelName.NORMAL).any():
        msg = f"Class {class_name!r}: expected a normal training image, found none. Add some, or leave the class out."
        raise ValueError(msg)
    samples = pd.concat([train, *evaluation], ignore_index=True)
    sizes = image_sizes(class_name, samples["image_path"])
    anomalous = pd.concat([train.iloc[:0], *evaluation]).loc[lambda rows: rows["label_index"] == LabelName.ABNORMAL]
    named = dict(zip(anomalous["image_path"], anomalous["mask_path"], strict=True))
    masks = {path: mask_files(mask) for path, mask in named.items()}
    check_all_or_none(class_name, masks, masks_named=any(mask_names(mask) for mask in named.values()))
    mask_sizes = image_sizes(class_name, (str(file) for files in masks.values() for file in files), shown=False)
    wrong = [
        f"{file} is {mask_sizes[str(file)]}, {path} is {sizes[path]}"
        for path, files in masks.items()
        for file in files
        if mask_sizes[str(file)] != sizes[path]
    ]
    if wrong:
        msg = (
            f"Class {class_name!r}: {len(wrong)} masks do not have the size (width, height) of their image: "
            f"{listed(wrong)}. Save each mask with its image's size."
        )
        raise ValueError(msg)
    return any(masks.values())


def check_all_or_none(class_name: str, masks: Mapping[str, Sequence[Path]], *, masks_named: bool) -> None:
    """Check that all anomalous images of a class have a mask, or that none has.

    Args:
        class_name: Name of the class, for the message.
        masks: The mask files of each anomalous image.
        masks_named: Whether the dataset names mask files, so that there have to be some.

    Raises:
        ValueError: If some have a mask and others none, or if none of the named files is there.
    """
    without = [path for path, files in masks.items() if not files]
    if without and (masks_named or len(without) < len(masks)):
        msg = (
            f"Class {class_name!r}: {len(without)} of {len(masks)} anomalous images have no mask: {listed(without)}. "
            "Add their masks, remove these images, or remove all masks of the class to use it at image level only."
        )
        raise ValueError(msg)


def image_sizes(class_name: str, paths: Iterable[str], shown: bool = True) -> dict[str, tuple[int, int]]:
    """Open image files and get their sizes.

    Args:
        class_name: Name of the class, for the message.
        paths: The files.
        shown: Whether their grey values are shown to a model; those of a mask are not.

    Returns:
        Width and height of each file in pixels.

    Raises:
        ValueError: If files are missing, empty, no images or of grey values that would be cut off.
    """
    sizes: dict[str, tuple[int, int]] = {}
    broken: list[str] = []
    for path in dict.fromkeys(paths):
        try:
            with Image.open(path) as image:
                if shown:
                    check_depth(image)
                sizes[path] = image.size
        except UNREADABLE as error:
            empty = Path(path).is_file() and not Path(path).stat().st_size
            broken.append(f"{path} (zero bytes)" if empty else f"{path} ({error})")
    if broken:
        msg = (
            f"Class {class_name!r}: {len(broken)} image files cannot be read: {listed(broken)}. "
            "Replace them or remove them."
        )
        raise ValueError(msg)
    return sizes


def mask_names(mask_path: object) -> list[str]:
    """Get the mask files that a dataset names, whichever way it says that there is none.

    Args:
        mask_path: Value of a ``mask_path`` column: a path, a list of paths, an empty string, ``None`` or NaN.

    Returns:
        The mask files; MVTec LOCO has several for an image.
    """
    paths = mask_path if isinstance(mask_path, list) else [mask_path]
    return [path for path in paths if isinstance(path, str) and path]


def mask_files(mask_path: object) -> list[Path]:
    """Get those of the mask files that a dataset names that are there."""
    return [path for path in map(Path, mask_names(mask_path)) if path.is_file()]


def image_files(folder: Path) -> list[Path]:
    """Get all image files below a folder, sorted; none if it is missing."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMG_EXTENSIONS and file.is_file())


def subfolders(folder: Path) -> list[Path]:
    """Get the folders in a folder that are not hidden, sorted; none if it is missing."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def pair_masks(image_folder: Path, mask_folder: Path) -> dict[Path, Path | None]:
    """Find the mask of each image by its name.

    The mask of ``SUB/NAME.jpg`` is below the same ``SUB`` of the mask folder, and called ``NAME`` with anything before
    or after it that is set off by a character like ``_``, as ``NAME_mask.png``. anomalib pairs sorted names instead,
    which goes wrong when ``1.png`` and ``10.png`` have ``1_mask.png`` and ``10_mask.png``.

    Args:
        image_folder: Folder of the images.
        mask_folder: Folder of the masks.

    Returns:
        The mask of each image, or ``None`` where there is none.
    """
    images = {file.relative_to(image_folder).with_suffix(""): file for file in image_files(image_folder)}
    pairs: dict[Path, Path | None] = dict.fromkeys(image_files(image_folder))
    for mask in image_files(mask_folder):
        parent = mask.relative_to(mask_folder).parent
        name = next((parent / name for name in _parts_of_name(mask.stem) if parent / name in images), None)
        if name is not None:
            pairs[images[name]] = mask
    return pairs


def _parts_of_name(stem: str) -> Iterator[str]:
    """Yield the name of a mask, then it without more and more of its end, then of its start."""
    cuts = [match.start() for match in re.finditer(r"[^0-9A-Za-z]", stem)]
    yield stem
    yield from (stem[:cut] for cut in reversed(cuts))
    yield from (stem[cut + 1 :] for cut in cuts)


def listed(files: Sequence[object]) -> str:
    """List the first few files, in order, and say how many more there are."""
    more = f" and {len(files) - LISTED_FILES} more" if len(files) > LISTED_FILES else ""
    return ", ".join(sorted(str(file) for file in files)[:LISTED_FILES]) + more


def picture_folder_name(datamodules: Sequence[AnomalibDataModule]) -> str | None:
    """Name the folder that holds the images of all classes.

    anomalib saves the picture of an image under the part of its path that comes after the datamodule's name. After
    this name, the paths of no two images are the same.

    Args:
        datamodules: The datamodules of all classes.

    Returns:
        The name, or ``None`` if the images have no folder in common.
    """
    folders: list[Path] = []
    for datamodule in datamodules:
        root = Path(getattr(datamodule, "root", None) or ".")
        named = [getattr(datamodule, name, None) for name in ("normal_dir", "normal_test_dir", "abnormal_dir")]
        for directory in named if any(named) else ["."]:
            several = [directory] if isinstance(directory, str | Path) else directory or []
            folders += [root.joinpath(folder).resolve() for folder in several]
    try:
        return Path(os.path.commonpath(folders)).name or None
    except ValueError:  # on different drives
        return None


def check_pictures(paths: Iterable[str], folder_name: str) -> None:
    """Check that anomalib saves the pictures of no two images to one file.

    Args:
        paths: The images.
        folder_name: Name of the datamodule.

    Raises:
        ValueError: If it does.
    """
    # anomalib's items follow links, so that it is the paths behind them that count.
    files = {str(Path(path).resolve()) for path in paths}
    pictures = {file: generate_output_filename(file, "", folder_name, mkdir=False) for file in files}
    counts = Counter(pictures.values())
    clashing = sorted(file for file, picture in pictures.items() if counts[picture] > 1)
    if clashing:
        msg = (
            f"The saved pictures of {len(clashing)} images would overwrite each other: {listed(clashing)}. Put the "
            "images of all classes, not links to them, below one folder."
        )
        raise ValueError(msg)


def explain_setup_error(class_name: str, datamodule: AnomalibDataModule, error: Exception) -> str:
    """Say what to do about a class whose datamodule cannot be set up.

    anomalib's own words are often those of pandas ("Must have equal len keys and value"). So the class's folder is
    looked at.

    Args:
        class_name: Name of the class.
        datamodule: The datamodule of the class.
        error: What it raised.

    Returns:
        The message.
    """
    start = f"Class {class_name!r} cannot be set up by {type(datamodule).__name__}"
    root = getattr(datamodule, "root", None)
    if root is None:
        return f"{start}: {error} Correct its folders, or leave the class out."
    folder = _category_folder(Path(root), datamodule.category)
    if not folder.is_dir():
        return f"{start}: its folder {folder} is missing. Correct root, or leave the class out."
    if not image_files(folder):
        return f"{start}: its folder {folder} has no images. Add some, or leave the class out."
    normal_dir = getattr(datamodule, "normal_dir", None)
    if isinstance(normal_dir, str | Path) and not image_files(folder / normal_dir):
        return f"{start}: {folder / normal_dir} has no normal training image. Add some, or leave the class out."
    pairs = [pair_masks(*folders) for folders in _mask_folders(folder, datamodule)]
    without = [image for masks in pairs for image, mask in masks.items() if mask is None]
    if without:
        return (
            f"{start}: {len(without)} anomalous images have no mask: {listed(without)}. Add their masks, or remove the "
            "images. If no image of the class has one, give MultiClass the parent folder as root, without dataset. "
            f"({error})"
        )
    return f"{start} from {folder}: {error} Correct what is not as anomalib expects it, or leave the class out."


def _category_folder(root: Path, category: str) -> Path:
    """Get the folder of a category, which some datasets have one folder deeper, as visa_pytorch/candle."""
    deeper = (folder for folder in subfolders(root) if (folder / category).is_dir())
    return root / category if (root / category).is_dir() else next(deeper, root) / category


def _mask_folders(folder: Path, datamodule: AnomalibDataModule) -> list[tuple[Path, Path]]:
    """Get the folders of anomalous images of a class, each with the folder of its masks."""
    if hasattr(datamodule, "mask_dir"):
        images, masks = datamodule.abnormal_dir, datamodule.mask_dir
        both = isinstance(images, str | Path) and isinstance(masks, str | Path)
        return [(folder / images, folder / masks)] if both else []
    kinds = [kind for kind in subfolders(folder / "test") if kind.name not in {"good", "ok"}]
    pairs = [(kind, folder / "ground_truth" / kind.name) for kind in kinds]
    # Images or masks in deeper folders are paired in another way.
    return [pair for pair in pairs if not any(map(subfolders, pair))]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Finds images, masks and folders of classes in the folders of a dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from anomalib.data import AnomalibDataModule, AnomalibDataset

from anomalib_hgad.data.letters import composed
from anomalib_hgad.data.reading import IMAGE_SUFFIXES

LISTED_FILES = 5


def mask_names(mask_path: object) -> list[str]:
    """Get the mask files that a dataset names, whatever value it uses for no mask.

    Args:
        mask_path: Value of a ``mask_path`` column: a path, a list of paths, an empty string, ``None`` or NaN.

    Returns:
        The mask files; MVTec LOCO has several for an image.
    """
    paths = mask_path if isinstance(mask_path, list) else [mask_path]
    return [path for path in paths if isinstance(path, str) and path]


def mask_files(mask_path: object) -> list[Path]:
    """Get the existing mask files among those that a dataset names."""
    return [path for path in map(Path, mask_names(mask_path)) if path.is_file()]


def image_files(folder: Path) -> list[Path]:
    """Get all image files below a folder that are not hidden, sorted; none if it is missing."""
    files = (Path(parent, name) for parent, _, names in _visible(folder) for name in names)
    return sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def linked_folders(folder: Path) -> list[Path]:
    """Get the linked folders with images below a folder: neither anomalib nor :func:`image_files` enters them.

    Links into the folder, to itself or to a folder above it are left out.
    """
    here = folder.resolve()
    links = [Path(parent, name) for parent, folders, _ in _visible(folder) for name in folders]
    outside = [
        link
        for link in links
        if link.is_symlink() and not link.resolve().is_relative_to(here) and not here.is_relative_to(link.resolve())
    ]
    return sorted(link for link in outside if image_files(link))


def is_hidden(file: Path, folders: Sequence[Path]) -> bool:
    """Whether the name of a file, or of a folder that it is in, starts with a dot, as ``.ipynb_checkpoints``.

    Args:
        file: The file.
        folders: Folders that were given by name, and so are visible whatever their path is.

    Returns:
        Whether it is hidden in the nearest of them.
    """
    below = [file.relative_to(folder) for folder in folders if file.is_relative_to(folder)]
    nearest = min(below, key=lambda path: len(path.parts), default=Path(file.name))
    return any(part.startswith(".") for part in nearest.parts)


def leave_out_hidden(data: AnomalibDataset, folders: Sequence[Path]) -> None:
    """Remove hidden images from a dataset; anomalib includes them with a warning.

    Args:
        data: The dataset.
        folders: As in :func:`is_hidden`.
    """
    resolved = [folder.resolve() for folder in folders]
    paths = [Path(path).absolute() for path in data.samples["image_path"]]
    hidden = [is_hidden(path, resolved) for path in paths]
    if any(hidden):
        data.samples = data.samples[[not of_path for of_path in hidden]]


def _visible(
    folder: Path, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk through a folder; yield the path of each folder and the names of its folders and files not hidden."""
    for parent, folders, names in os.walk(folder, onerror=onerror):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield parent, folders, [name for name in names if not name.startswith(".")]


def common_folder(files: Sequence[Path]) -> Path:
    """Deepest folder that contains all files."""
    return Path(os.path.commonpath([file.absolute().parent for file in files]))


def check_permission(folder: Path) -> None:
    """Check that a folder and its visible subfolders can be listed; an unreadable folder would be treated as empty.

    Args:
        folder: The folder. It may be missing.

    Raises:
        PermissionError: If the user may not read a folder.
    """

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            msg = f"No permission to read the folder {error.filename}. Grant it to this user, or leave the folder out."
            raise PermissionError(msg) from error

    for _ in _visible(folder, onerror=refuse):
        pass


def subfolders(folder: Path) -> list[Path]:
    """Get the folders in a folder that are not hidden, sorted; none if it is missing.

    Links to the folder itself or to a folder above it are left out.
    """
    if not folder.is_dir():
        return []
    above = (folder.resolve(), *folder.resolve().parents)
    folders = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in folders if path.resolve() not in above)


def pair_masks(image_folder: Path, mask_folder: Path) -> dict[Path, list[Path]]:
    """Find the masks of each image by its name.

    A mask of ``SUB/NAME.jpg`` is below the same ``SUB`` of the mask folder, and its name is ``NAME``, optionally with a
    prefix or suffix that is separated by a character like ``_``, such as ``NAME_mask.png`` and ``NAME_mask_2.png``.
    anomalib pairs sorted names instead, which is wrong when ``1.png`` and ``10.png`` have the masks ``1_mask.png`` and
    ``10_mask.png``.

    Args:
        image_folder: Folder of the images.
        mask_folder: Folder of the masks.

    Returns:
        The masks of each image, in order; an empty list for an image without masks.
    """
    pairs: dict[Path, list[Path]] = {file: [] for file in image_files(image_folder)}
    images = {composed(str(file.relative_to(image_folder).with_suffix(""))): file for file in pairs}
    for mask in image_files(mask_folder):
        parent = mask.relative_to(mask_folder).parent
        names = (composed(str(parent / name)) for name in _parts_of_name(composed(mask.stem)))
        name = next((name for name in names if name in images), None)
        if name is not None:
            pairs[images[name]].append(mask)
    return pairs


def _parts_of_name(stem: str) -> Iterator[str]:
    """Yield the name of a mask, then shorter and shorter prefixes of it, then shorter and shorter suffixes."""
    cuts = [match.start() for match in re.finditer(r"[\W_]", stem)]
    yield stem
    yield from (stem[:cut] for cut in reversed(cuts))
    yield from (stem[cut + 1 :] for cut in cuts)


def listed(files: Sequence[object]) -> str:
    """List the first few files, in order, and the number of the others."""
    more = f" and {len(files) - LISTED_FILES} more" if len(files) > LISTED_FILES else ""
    return ", ".join(sorted(str(file) for file in files)[:LISTED_FILES]) + more


def named_folders(datamodule: AnomalibDataModule, *arguments: str) -> list[Path]:
    """Get the folders that a datamodule was given by name, as in ``Folder``.

    Args:
        datamodule: The datamodule.
        *arguments: Names of its arguments, each for one or several folders.

    Returns:
        The folders; none if it has no such arguments.
    """
    root = Path(getattr(datamodule, "root", None) or ".")
    given = [getattr(datamodule, name, None) or [] for name in arguments]
    return [root / folder for value in given for folder in ([value] if isinstance(value, str | Path) else value)]


def category_folder(root: Path, category: str) -> Path:
    """Get the folder of a category, which is one level deeper in some datasets, as visa_pytorch/candle."""
    deeper = (folder for folder in subfolders(root) if (folder / category).is_dir())
    return root / category if (root / category).is_dir() else next(deeper, root) / category

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The folders of a class: normal images, anomalous images and masks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from pathlib import Path
from typing import Any

from anomalib_hgad.data.class_folder import ClassFolder
from anomalib_hgad.data.folders import check_permission, image_files, linked_folders, listed, subfolders

logger = logging.getLogger(__name__)

GOOD = "good"
"""Name of the folders of normal images in MVTec layout."""

ALIKE = frozenset(
    {
        "accept",
        "accepted",
        "anomalyfree",
        "clean",
        "correct",
        "defectfree",
        "fine",
        "flawless",
        "goods",
        "gut",
        "healthy",
        "intact",
        "io",
        "negative",
        "noanomaly",
        "nodefect",
        "nodefects",
        "nominal",
        "nonanomalous",
        "nondefective",
        "normal",
        "ok",
        "okay",
        "pass",
        "passed",
        "perfect",
        "undamaged",
    }
)
"""Names with the same meaning as :data:`GOOD`, without the characters between their words."""

TRAIN, TEST, MASKS = "train", "test", "ground_truth"
"""Names of the folders within the folder of a class in MVTec layout."""

ALIKE_MASKS = frozenset({"groundtruth", "groundtruths", "gt", "label", "labels", "mask", "masks"})
"""Names with the same meaning as :data:`MASKS`, without the characters between their words."""


@dataclass(frozen=True)
class FolderNames:
    """Names of the folders within the folder of a class. Without ``normal_dir``, the classes have MVTec layout.

    MVTec layout is ``train/good``, ``test/good``, ``test/KIND`` and ``ground_truth/KIND``; the case of these four names
    does not matter.

    Attributes:
        normal_dir: Folder of normal training images, or several.
        normal_test_dir: Folder of normal test images, or several.
        abnormal_dir: Folder of anomalous test images, or several.
        mask_dir: Folder of their masks; one for each folder of anomalous images, in the same order.
    """

    normal_dir: list[str] | str | None
    normal_test_dir: list[str] | str | None
    abnormal_dir: list[str] | str | None
    mask_dir: list[str] | str | None

    def of(self, argument: str) -> list[str]:
        """Folder names given for an argument."""
        given = getattr(self, argument)
        return [given] if isinstance(given, str) else list(given or [])


@dataclass(frozen=True)
class ClassFolders:
    """The folders of one class.

    Attributes:
        normal: Folders of normal training images.
        normal_test: Folders of normal test images.
        masks: Folders of anomalous images, each with the folder of its masks.
        mask_places: All folders of masks.
    """

    normal: list[Path]
    normal_test: list[Path]
    masks: dict[Path, Path | None]
    mask_places: list[Path]


def check_named_folders(root: Path, places: Sequence[Path], folders: FolderNames) -> None:
    """Check that folder names are consistent: each folder exists in at least one class, and none lies in another.

    Args:
        root: Folder of the classes.
        places: Folders of the chosen classes.
        folders: The given names.

    Raises:
        ValueError: If names are given without ``normal_dir``, if two folders of images of a kind are equal or one is in
            the other, or if the numbers of ``mask_dir`` and ``abnormal_dir`` differ.
        FileNotFoundError: If no class has one of the folders.
    """
    for argument in (field.name for field in fields(folders)):
        given = getattr(folders, argument)
        if given is not None and not folders.of("normal_dir"):
            msg = f"Got {argument}={given!r} without normal_dir. Give normal_dir too, or neither for MVTec layout."
            raise ValueError(msg)
        for folder in folders.of(argument):
            if not any((place / folder).is_dir() for place in places):
                msg = f"Expected a folder {folder!r} in the classes of {root}, but none has it. Correct {argument}."
                raise FileNotFoundError(msg)
        if argument != "mask_dir":  # images of several folders may have their masks in one
            _check_apart(argument, folders.of(argument), places)
    masks, abnormal = folders.of("mask_dir"), folders.of("abnormal_dir")
    if masks and len(masks) != len(abnormal):
        msg = f"Expected a mask_dir for each abnormal_dir, in the same order, got mask_dir={folders.mask_dir!r} and "
        msg += f"abnormal_dir={folders.abnormal_dir!r}. Give the same number of both, or no mask_dir."
        raise ValueError(msg)


def _check_apart(argument: str, names: Sequence[str], places: Sequence[Path]) -> None:
    """Raise if two folders are equal or one is in the other: images would count twice."""
    for first, second in permutations(names, 2):
        if any((place / second).resolve().is_relative_to((place / first).resolve()) for place in places):
            msg = f"{argument} names images twice: {second!r} is {first!r}, or in it. Remove one of them."
            raise ValueError(msg)


def class_folder(folder: Path, names: FolderNames, **kwargs: Any) -> ClassFolder:  # noqa: ANN401
    """Create the datamodule of the folder of a class, ignoring folders without images.

    Args:
        folder: The folder.
        names: Names of the folders in it.
        **kwargs: Further arguments of anomalib's ``Folder``.

    Returns:
        The datamodule.

    Raises:
        FileNotFoundError: If it has no folder of normal training images.
        ValueError: If there are images where none are expected, or in a folder whose name suggests normal images.
        PermissionError: If a folder cannot be read.
    """
    check_permission(folder)
    warn_of_linked_folders(folder.name, _places(folder, names))
    found = _mvtec_layout(folder) if names.normal_dir is None else _named_layout(folder, names)
    if not any(place.is_dir() for place in found.normal):
        msg = (
            f"Class {folder.name!r}: expected normal training images in {listed(found.normal)}, but the folder does "
            f"not exist. Add it, remove {folder}, choose the classes with categories, or give the name of the folder "
            "as normal_dir."
        )
        raise FileNotFoundError(msg)
    there = [place.resolve() for place in found.normal if place.is_dir()]
    return ClassFolder(
        name=folder.name,
        root=folder,
        normal_dirs=[place for place in there if image_files(place)] or there,
        normal_test_dirs=[place.resolve() for place in found.normal_test if image_files(place)],
        mask_dirs={images.resolve(): masks for images, masks in found.masks.items() if image_files(images)},
        mask_places=found.mask_places,
        **kwargs,
    )


def normal_folders(folder: Path, normal_dir: list[str] | str | None) -> list[Path]:
    """Existing folders of normal training images within the folder of a class.

    Args:
        folder: The folder.
        normal_dir: Their names; ``None`` for MVTec layout.
    """
    if normal_dir is None:
        return [place for train in _called(TRAIN, folder) for place in subfolders(train) if is_good(place)]
    names = [normal_dir] if isinstance(normal_dir, str) else normal_dir
    return [folder / name for name in names if (folder / name).is_dir()]


def warn_of_linked_folders(class_name: str, places: Iterable[Path]) -> None:
    """Warn of linked folders with images within folders of a class; the latter may be links."""
    if linked := [link for place in places for link in linked_folders(place)]:
        logger.warning(
            "Class %r: images in the linked folders %s are ignored. Link their files instead, or name these folders as "
            "normal_dir and so on.",
            class_name,
            listed(linked),
        )


def _places(folder: Path, names: FolderNames) -> list[Path]:
    """Folders of a class that may hold images."""
    if names.normal_dir is None:
        return [kind for place in subfolders(folder) for kind in subfolders(place)]
    return [folder / name for field in fields(names) for name in names.of(field.name)]


def _named_layout(folder: Path, names: FolderNames) -> ClassFolders:
    abnormal = [folder / name for name in names.of("abnormal_dir")]
    masks = [folder / name for name in names.of("mask_dir")]
    without: list[Path | None] = [None] * len(abnormal)
    return ClassFolders(
        [folder / name for name in names.of("normal_dir")],
        [folder / name for name in names.of("normal_test_dir")],
        dict(zip(abnormal, masks or without, strict=True)),
        masks,
    )


def _mvtec_layout(folder: Path) -> ClassFolders:
    train, test, ground_truth = (_only_one(name, folder) for name in (TRAIN, TEST, MASKS))
    for place, belongs in ((train, GOOD), (test, f"{GOOD} or KIND"), (ground_truth, "KIND")):
        if stray := _directly_in(place):
            msg = f"Class {folder.name!r}: {len(stray)} images are directly in {place}: {listed(stray)}. Move "
            msg += f"them to {place.name}/{belongs}, or give the names of your folders as normal_dir and so on."
            raise ValueError(msg)
    _check_unread(folder, (train, test, ground_truth), has_masks=bool(image_files(ground_truth)))
    normal = normal_folders(folder, None)
    if unused := [place for place in subfolders(train) if place not in normal and image_files(place)]:
        logger.warning("Class %r: images in %s are ignored: only train/good is used.", folder.name, listed(unused))
    kinds = [kind for kind in subfolders(test) if not is_good(kind) and image_files(kind)]
    masks = {kind: ground_truth / kind.name for kind in kinds}
    if alike := [kind for kind in kinds if is_like_good(kind.name) and not image_files(masks[kind])]:
        msg = f"Class {folder.name!r}: {listed(alike)} seems to hold normal images by its name, but all folders in "
        msg += f"test except '{GOOD}' hold anomalous images. Rename it to '{GOOD}', or after the kind of defect."
        raise ValueError(msg)
    normal_test = [place for place in subfolders(test) if is_good(place)]
    if kinds and not any(image_files(place) for place in normal_test):
        logger.warning(
            "Class %r has no normal images in test/good: all images in %s are treated as anomalous, and normal test "
            "images are split off the training images.",
            folder.name,
            listed(kinds),
        )
    mask_places = [place for place in subfolders(ground_truth) if not is_good(place)]
    return ClassFolders(normal or [train / GOOD], normal_test, dict(masks), mask_places)


def _called(name: str, folder: Path) -> list[Path]:
    """Subfolders with a name, in any case."""
    return [place for place in subfolders(folder) if place.name.casefold() == name]


def _only_one(name: str, folder: Path) -> Path:
    """The only subfolder with a name, in any case; it may be missing."""
    places = _called(name, folder)
    if len(places) > 1:
        msg = f"Class {folder.name!r}: expected one folder {name!r}, got {listed(places)}. Merge them."
        raise ValueError(msg)
    return places[0] if places else folder / name


def _directly_in(folder: Path) -> list[Path]:
    """Images in a folder, outside its subfolders."""
    return [file for file in image_files(folder) if file.parent == folder]


def _check_unread(folder: Path, read: Sequence[Path], *, has_masks: bool) -> None:
    """Warn of images of a class outside the folders that are read; raise if these seem to be its masks."""
    unread = [place for place in subfolders(folder) if place not in read and image_files(place)]
    alike = [place for place in unread if "".join(_words(place.name)) in ALIKE_MASKS]
    if alike and not has_masks:
        msg = f"Class {folder.name!r}: {listed(alike)} seems to hold masks by its name, but only those in {MASKS}/KIND "
        msg += f"are read. Rename it to {MASKS!r}, or give the names of your folders as normal_dir and so on."
        raise ValueError(msg)
    if ignored := [*unread, *_directly_in(folder)]:
        logger.warning(
            "Class %r: %s are ignored: only images in %s, %s and %s are read. Move them there, or leave them out.",
            folder.name,
            listed(ignored),
            TRAIN,
            TEST,
            MASKS,
        )


def is_good(folder: Path) -> bool:
    """Whether a folder holds normal images in MVTec layout."""
    return folder.name.casefold() == GOOD


def is_like_good(name: str) -> bool:
    """Whether a folder name suggests normal images, such as ``OK``, ``good_2`` or ``defect-free``."""
    words = _words(name)
    return "".join(words) in ALIKE or words[:1] == [GOOD]


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.casefold())

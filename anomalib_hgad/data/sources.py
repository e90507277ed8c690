# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Sources of the classes of a :class:`~anomalib_hgad.MultiClass`.

A source is an anomalib datamodule of one class. There are three kinds of sources: datamodules created by the user, the
categories of a dataset that anomalib knows, and the subfolders of a folder.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import anomalib.data
from anomalib.data import AnomalibDataModule
from anomalib.data.datamodules.base import AnomalibVideoDataModule
from anomalib.data.utils import TestSplitMode, ValSplitMode

from anomalib_hgad.common.checks import check_folder_names
from anomalib_hgad.data.folders import image_files, listed, subfolders
from anomalib_hgad.data.layouts import FolderNames, check_named_folders, class_folder
from anomalib_hgad.data.letters import composed
from anomalib_hgad.data.reserved_names import MEAN, POOLED, UNKNOWN

logger = logging.getLogger(__name__)

# Where a dataset has its categories, if not in its root.
DEEPER_FOLDERS = {"Visa": ["visa_pytorch"], "RealIAD": ["realiad_256", "realiad_512", "realiad_1024"]}


@dataclass(frozen=True)
class ClassSource:
    """One class and the datamodule of its images.

    Attributes:
        name: Name of the class.
        dataset: Name of the dataset of the class, used as a prefix if another dataset has a class of the same name.
        datamodule: Splits, reads and augments the images.
    """

    name: str
    dataset: str
    datamodule: AnomalibDataModule


def sources_of_datamodules(datamodules: Sequence[AnomalibDataModule]) -> list[ClassSource]:
    """Make a class of each datamodule, in the given order.

    A class is named after its datamodule's category, or else after its datamodule. If classes of different datasets
    have the same name, each gets its dataset's name as a prefix, as in ``MVTecAD_transistor``.

    Args:
        datamodules: One datamodule for each class. A ``MultiClass`` among them contributes all its classes.

    Returns:
        The classes.

    Raises:
        TypeError: If a datamodule is not for images.
        ValueError: If two classes have the same name, or a name cannot be that of a folder.
    """
    sources: list[ClassSource] = []
    for datamodule in datamodules:
        if isinstance(datamodule, AnomalibVideoDataModule) or not isinstance(datamodule, AnomalibDataModule):
            msg = (
                f"Expected anomalib datamodules for images in datamodules, got {type(datamodule).__name__}. "
                "Give one image datamodule for each class, such as MVTecAD(category='bottle')."
            )
            raise TypeError(msg)
        _keep_normal_test_images(datamodule)
        taken_over = [source for source in getattr(datamodule, "sources", ()) if isinstance(source, ClassSource)]
        _check_classes_are_taken_over(datamodule, [source.name for source in taken_over])
        sources += taken_over or [_one_class(datamodule)]
    counts = Counter(source.name for source in sources)
    sources = [
        replace(source, name=f"{source.dataset}_{source.name}") if counts[source.name] > 1 else source
        for source in sources
    ]
    check_names([source.name for source in sources])
    return sources


def _one_class(datamodule: AnomalibDataModule) -> ClassSource:
    """Make a class of a datamodule, named in one of Unicode's forms: a checkpoint identifies its classes by name."""
    name = datamodule.category or datamodule.name
    check_names([name])
    return ClassSource(composed(name), composed(datamodule.name or name), datamodule)


def _check_classes_are_taken_over(datamodule: AnomalibDataModule, taken_over: Sequence[str]) -> None:
    """Raise if a datamodule has classes of its own, other than those that are taken over from it.

    Examples are clusters, the classes of references, and those of CIFAR-10.
    """
    own = getattr(datamodule, "class_names", None)
    kind = getattr(getattr(datamodule, "pseudo_labels", None), "kind", "given")
    if kind != "given" or (own is not None and list(own) != list(taken_over)):
        of_kind = "" if kind == "given" else f" with labels={kind!r}"
        msg = f"{type(datamodule).__name__}{of_kind} finds its classes itself, which would be lost among datamodules. "
        msg += "Use it alone, or give labels to the outer MultiClass."
        raise ValueError(msg)


def _keep_normal_test_images(datamodule: AnomalibDataModule) -> None:
    """Change a default of MVTecAD2 and RealIAD with which anomalib leaves out their normal test images."""
    setting = inspect.signature(type(datamodule)).parameters.get("test_split_mode")
    by_default = setting is None or setting.default == TestSplitMode.NONE
    if by_default and datamodule.test_split_mode == TestSplitMode.NONE:
        datamodule.test_split_mode = TestSplitMode.FROM_DIR


def check_names(names: Sequence[str]) -> None:
    """Raise if a name occurs twice, is reserved, or would put files of the class outside the folder of the results."""
    check_folder_names("a class", names)
    if taken := [name for name in names if name in {MEAN, POOLED, UNKNOWN}]:
        msg = f"{listed(taken)} cannot be the name of a class: the results use it for rows or predictions. "
        msg += "Rename it."
        raise ValueError(msg)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        msg = f"Classes named twice: {listed(twice)}. Remove one, or give a Folder datamodule another `name`."
        raise ValueError(msg)


def sources_of_dataset(
    dataset: str,
    root: str | Path | None,
    categories: Sequence[str] | None,
    **kwargs: Any,  # noqa: ANN401
) -> list[ClassSource]:
    """Make a class of each category of a dataset that anomalib knows.

    Args:
        dataset: Name of an anomalib datamodule that has a ``category``, in any case.
        root: Folder of the dataset; ``None`` for anomalib's default.
        categories: The categories; ``None`` for all that exist in ``root``, or simply all if ``root`` is missing or
            empty, as anomalib then downloads the dataset or says how to.
        **kwargs: Further arguments of the datamodule.

    Returns:
        The classes, sorted by name.

    Raises:
        ValueError: If there is no such dataset, category or argument of the dataset, or if a category is named twice.
        FileNotFoundError: If ``root`` has no category.
    """
    known: dict[str, Any] = {
        name: value
        for name, value in vars(anomalib.data).items()
        if isinstance(value, type)
        and issubclass(value, AnomalibDataModule)
        and not issubclass(value, AnomalibVideoDataModule)
        and "category" in inspect.signature(value).parameters
    }
    name = next((name for name in known if name.lower() == dataset.lower()), None)
    if name is None:
        msg = f"Expected dataset to be one of {', '.join(sorted(known))}; got {dataset!r}. Choose one or give "
        msg += "datamodules."
        raise ValueError(msg)
    refused = sorted(kwargs.keys() - inspect.signature(known[name]).parameters)
    if refused:
        msg = f"{name} splits its images itself and does not accept {', '.join(refused)}. Leave it out."
        raise ValueError(msg)
    if root is not None:
        kwargs["root"] = root
    module = import_module(known[name].__module__.replace(".datamodules.", ".datasets."))
    all_categories: Sequence[str] = getattr(module, "CATEGORIES", ())
    dataset_root = Path(known[name](**kwargs).root)
    if categories is None:
        categories = _categories_there(name, dataset_root, all_categories)
    # anomalib reads a folder in the layout of the dataset, whatever its name.
    own = [category for category in categories if category in _category_folders(name, dataset_root)]
    names = _chosen(categories, [*all_categories, *own] if all_categories else (), name)
    datamodules = [known[name](category=category, **kwargs) for category in names]
    if "test_split_mode" not in kwargs:
        for datamodule in datamodules:
            _keep_normal_test_images(datamodule)
    return [ClassSource(category, name, of) for category, of in zip(names, datamodules, strict=True)]


def _categories_there(dataset: str, root: Path, all_categories: Sequence[str]) -> list[str]:
    """Find the categories of a dataset in its root; see :func:`sources_of_dataset`."""
    folders = _category_folders(dataset, root)
    if not folders and all_categories:
        return list(all_categories)
    there = [category for category in all_categories or sorted(folders) if category in folders]
    others = [folder for name, folder in folders.items() if name not in there and image_files(folder / "train")]
    if there and others:
        logger.warning(
            "%s have training images, but are left out: anomalib lists no such categories of %s. Give categories to "
            "use them, or rename them.",
            listed(others),
            dataset,
        )
    if not there:
        msg = (
            f"Expected a folder for a category of {dataset} ({', '.join(all_categories)}) in {root}, found none. "
            "Correct root, or give categories if they are not folders."
        )
        raise FileNotFoundError(msg)
    return there


def _category_folders(dataset: str, root: Path) -> dict[str, Path]:
    """Folders by name in the places where a dataset has its categories."""
    places = [root, *(root / folder for folder in DEEPER_FOLDERS.get(dataset, []))]
    return {folder.name: folder for place in places for folder in subfolders(place)}


def _chosen(wanted: Sequence[str], there: Sequence[str], where: str) -> list[str]:
    """Check the requested classes against the existing ones, and sort them."""
    unknown = [name for name in wanted if there and name not in there]
    if unknown or not wanted:
        msg = f"Expected categories of {where} ({', '.join(there)}), got {', '.join(unknown) or 'none'}. Correct them."
        raise ValueError(msg)
    check_names(wanted)
    return sorted(wanted)


def sources_of_folders(
    root: str | Path,
    categories: Sequence[str] | None,
    folders: FolderNames,
    **kwargs: Any,  # noqa: ANN401
) -> list[ClassSource]:
    """Make a class of each subfolder.

    Within the folder of a class, only the folder of normal training images is required. A class without anomalous
    images gets its test images as in anomalib's ``Folder``. A class without masks gets image-level metrics only.

    Args:
        root: Folder whose subfolders are the classes.
        categories: The subfolders to use; ``None`` for all.
        folders: Names of the folders within the folder of each class.
        **kwargs: Further arguments of anomalib's ``Folder``.

    Returns:
        The classes, sorted by name.

    Raises:
        FileNotFoundError: If the root or a folder of normal images is missing, or if no class has a given folder.
        ValueError: If a class is unknown or named twice, or if folders are named but not that of normal images.
        PermissionError: If a folder of a class cannot be read.
    """
    root = Path(root)
    there = subfolders(root)
    if not there:
        found = "has none" if root.is_dir() else "is missing"
        msg = f"Expected a folder with a subfolder for each class, but {root} {found}. Correct root."
        raise FileNotFoundError(msg)
    # Unicode has two forms of some names, and a checkpoint identifies its classes by name.
    check_names([composed(folder.name) for folder in there])
    folder_of = {composed(folder.name): folder for folder in there}
    wanted = [composed(name) if isinstance(name, str) else name for name in categories or ()]
    names = _chosen(list(folder_of) if categories is None else wanted, list(folder_of), str(root))
    check_named_folders(root, [folder_of[name] for name in names], folders)
    if folders.normal_dir is None:  # MVTecAD's default; Folder's would remove half of the test images
        kwargs = {"val_split_mode": ValSplitMode.SAME_AS_TEST} | kwargs
    dataset = root.resolve().name
    return [ClassSource(name, dataset, class_folder(folder_of[name], folders, **kwargs)) for name in names]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks the types of the arguments of :class:`~anomalib_hgad.MultiClass`; wrong ones would fail deep inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.nn import Sequential


def as_text(names: Sequence[str | Path] | str | Path | None) -> list[str] | str | None:
    """Return names of folders as text: anomalib's ``Folder`` also takes paths, alone or in a list."""
    if names is None or isinstance(names, str):
        return names
    return str(names) if isinstance(names, Path) else [str(name) for name in names]


def _takes_images_alone(transform: object) -> bool:
    """Whether a transform takes no mask: one of torchvision's first version, or PyTorch's ``Sequential``."""
    return isinstance(transform, Sequential) or type(transform).__module__ == "torchvision.transforms.transforms"


def check_argument_types(
    datamodules: object, dataset: object, categories: object, of_each_class: Mapping[str, object]
) -> None:
    """Check the types of arguments.

    Args:
        datamodules: Expected to be a list or tuple, if given.
        dataset: Expected to be a name, if given.
        categories: Expected to be several names, if given.
        of_each_class: Settings of the classes that are given; augmentations are expected to be transforms.

    Raises:
        TypeError: If one has another type.
    """
    if datamodules is not None and not isinstance(datamodules, list | tuple):
        msg = (
            f"Expected a list of datamodules, got {type(datamodules).__name__}. Put one for each class into a list; a "
        )
        msg += "class is named after its category, or else by the name of its datamodule."
        raise TypeError(msg)
    if dataset is not None and not isinstance(dataset, str):
        msg = f"Expected the name of a dataset, such as 'MVTecAD', got {dataset!r}."
        raise TypeError(msg)
    names = [categories] if isinstance(categories, str) else categories or []
    others = [name for name in names if not isinstance(name, str)]  # type: ignore[attr-defined]
    if isinstance(categories, str) or others:
        msg = f"Expected a list of names as categories, such as ['bolt', '01'], got {categories!r}."
        raise TypeError(msg)
    for name, value in of_each_class.items():
        if name.endswith("augmentations") and (not callable(value) or _takes_images_alone(value)):
            msg = f"Expected {name} to be a transform of torchvision.transforms.v2, which takes images with their "
            msg += f"masks, such as Compose([...]), got {value!r}."
            raise TypeError(msg)

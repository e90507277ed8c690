# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks the uses of every file of a dataset: no image may be used for both training and testing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName

from anomalib_hgad.data.folders import listed, mask_files

TRAINING, NORMAL, ANOMALOUS, MASK = "training image", "normal test image", "anomalous test image", "mask"


class FileUses:
    """Files of all classes and their uses."""

    def __init__(self) -> None:
        # For every file: its uses, each with its class, and the path.
        self._uses: defaultdict[object, dict[tuple[str, str], str]] = defaultdict(dict)

    def add(self, class_name: str, subsets: Mapping[str, AnomalibDataset]) -> None:
        """Add the files of a class.

        Args:
            class_name: Name of the class.
            subsets: Its datasets, by name.

        Raises:
            ValueError: If a file has two conflicting uses, as when a folder is within another one, or links to it.
        """
        for subset, data in subsets.items():
            samples = data.samples
            rows = zip(samples["image_path"], samples["label_index"], samples["mask_path"], strict=True)
            for path, label, mask in rows:
                evaluated = NORMAL if label == LabelName.NORMAL else ANOMALOUS
                self._use(str(path), TRAINING if subset == "train_data" else evaluated, class_name)
                for file in mask_files(mask):
                    self._use(str(file), MASK, class_name)
        wrong = [
            f"{next(iter(uses.values()))} ({', '.join(f'{use} of {name!r}' for use, name in uses)})"
            for uses in self._uses.values()
            if _exclude_each_other(uses)
        ]
        if wrong:
            msg = (
                f"Class {class_name!r}: {len(wrong)} files have more than one use: {listed(wrong)}. No image may be "
                "in both training and test, or both normal and anomalous, and no mask may be an image: remove folders "
                "within each other, and links or duplicate names of a file."
            )
            raise ValueError(msg)

    def _use(self, path: str, use: str, class_name: str) -> None:
        self._uses[_identity(Path(path))].setdefault((use, class_name), path)


def _identity(path: Path) -> object:
    """Value that is the same for all links to a file and all its names."""
    if path.exists():
        status = path.stat()
        if status.st_nlink > 1:
            return status.st_dev, status.st_ino
    return path.resolve()


def _exclude_each_other(uses: Mapping[tuple[str, str], str]) -> bool:
    """Whether uses conflict; an image that is normal in one class may be anomalous in another."""
    kinds = {use for use, _ in uses}
    if {TRAINING, MASK} & kinds:
        return len(kinds) > 1
    names = {name for _, name in uses}
    return len(names) < len(uses)

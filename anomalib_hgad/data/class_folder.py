# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A folder with the images of one class."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalib import TaskType
from anomalib.data import Folder

from anomalib_hgad.data.folders import image_files, leave_out_hidden, listed, named_folders, pair_masks
from anomalib_hgad.data.masks import read_masks

logger = logging.getLogger(__name__)


class ClassFolder(Folder):
    """A folder of images whose masks are found by name.

    anomalib's ``Folder`` pairs the sorted images with the sorted masks, which requires equal numbers, and is wrong when
    ``1.png`` and ``10.png`` have the masks ``1_mask.png`` and ``10_mask.png``.

    Args:
        name: Name of the class.
        root: Folder of the class.
        normal_dirs: Folders of normal training images.
        normal_test_dirs: Folders of normal test images. Without them, test images are split off the training images.
        mask_dirs: For each folder of anomalous images, the folder of their masks.
        mask_places: Folders with masks, at least one of which has to belong to an image.
        **kwargs: Splits and augmentations, as in ``Folder``.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        normal_dirs: Sequence[Path],
        normal_test_dirs: Sequence[Path],
        mask_dirs: Mapping[Path, Path | None],
        mask_places: Sequence[Path],
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(
            name=name,
            root=root,
            normal_dir=list(normal_dirs),
            normal_test_dir=list(normal_test_dirs) or None,
            abnormal_dir=list(mask_dirs) or None,
            **kwargs,
        )
        self.mask_dirs = mask_dirs
        self.mask_places = mask_places

    def _setup(self, _stage: str | None = None) -> None:
        super()._setup(_stage)
        for data in (self.train_data, self.test_data):
            # Before images are split off or turned into synthetic anomalies.
            leave_out_hidden(data, named_folders(self, "normal_dir", "normal_test_dir", "abnormal_dir"))
        masks: dict[str, list[str]] = {}
        for image_dir, mask_dir in self.mask_dirs.items():
            pairs = pair_masks(image_dir, mask_dir) if mask_dir else {}
            masks.update({str(image): list(map(str, of_image)) for image, of_image in pairs.items() if of_image})
        self._check_that_masks_are_used(masks)
        task = TaskType.SEGMENTATION if masks else TaskType.CLASSIFICATION
        self.train_data.samples.attrs["task"] = self.test_data.samples.attrs["task"] = task.value
        self.test_data.samples["mask_path"] = [masks.get(path, "") for path in self.test_data.samples["image_path"]]

    def _check_that_masks_are_used(self, masks: Mapping[str, list[str]]) -> None:
        """Raise if there are masks, but none belongs to an image: the class would be treated as one without masks.

        If some belong to none, warn: an image may be missing or have another name, and then its defect is lost. Masks
        that mark nothing are not named, as datasets have them for normal images too.
        """
        files = dict.fromkeys(file for folder in self.mask_places for file in image_files(folder))
        if files and self.mask_dirs and not masks:
            msg = f"no anomalous image has a mask, but there are masks with other names: {listed(list(files))}"
            raise ValueError(msg)
        used = {file for of_image in masks.values() for file in of_image}
        if masks and (unused := [file for file in files if str(file) not in used and _marks_anything(file)]):
            logger.warning(
                "Class %r: %d masks belong to no image: %s. Their images are missing or have other names: correct the "
                "names, or remove the masks.",
                self.name,
                len(unused),
                listed(unused),
            )


def _marks_anything(mask: Path) -> bool:
    """Whether a mask marks a pixel, or cannot be read."""
    try:
        return bool(read_masks([mask]).any())
    except OSError:
        return True

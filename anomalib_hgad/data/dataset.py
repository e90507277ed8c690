# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images of many classes as one anomalib dataset.

Each class keeps its own dataset, which reads and augments its images. This module concatenates them, and adds the class
of every image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path

import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset, ImageItem
from anomalib.data.datasets.base.depth import AnomalibDepthDataset
from anomalib.data.utils import LabelName, read_image
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset
from torch.utils.data import BatchSampler, Sampler
from torchvision.tv_tensors import Mask

from anomalib_hgad.data.batch import ClassImageBatch, ClassImageItem
from anomalib_hgad.data.folders import listed, mask_names
from anomalib_hgad.data.masks import joined, read_masks
from anomalib_hgad.data.reading import UNREADABLE, decoding


@dataclass(frozen=True)
class ClassPart:
    """One class's share of a :class:`MultiClassDataset`.

    Attributes:
        class_index: Position of the class in the datamodule's ``class_names``.
        class_name: Name of the class.
        dataset: Reads the images of the class.
        has_masks: Whether the class has masks; a class without masks gets image-level metrics only.
    """

    class_index: int
    class_name: str
    dataset: AnomalibDataset
    has_masks: bool


class MultiClassDataset(AnomalibDataset):
    """Concatenates the datasets of several classes.

    ``samples`` has a row for each image: the children's ``image_path``, made absolute, ``split``, ``label_index`` and
    ``mask_path``, then ``class_index``, ``class_name`` and ``has_masks``, then ``part`` and ``row``, which say where to
    read it. Rows can be reordered, removed, as anomalib's ``subsample`` does, and given another class.

    ``augmentations``, which anomalib's tiled ensemble sets, are applied in addition to those of the classes.

    Args:
        parts: The classes. A class may occur more than once.

    Raises:
        ValueError: If there are no parts.
    """

    def __init__(self, parts: Sequence[ClassPart]) -> None:
        super().__init__()
        if not parts:
            msg = "MultiClassDataset expected at least one class, got none. Give it the dataset of a class."
            raise ValueError(msg)
        self.parts = list(parts)
        self.samples = pd.concat([_rows(number, part) for number, part in enumerate(parts)], ignore_index=True)

    @AnomalibDataset.samples.setter  # type: ignore[untyped-decorator]
    def samples(self, samples: pd.DataFrame) -> None:
        """Set the images, all of which have to exist.

        Args:
            samples: A row for each.

        Raises:
            FileNotFoundError: If an image does not exist.
        """
        gone = [path for path in samples["image_path"] if not Path(path).exists()]
        if gone:
            msg = f"{len(gone)} images were deleted after the data was set up: {listed(gone)}. Restore them, or start "
            msg += "again without them."
            raise FileNotFoundError(msg)
        AnomalibDataset.samples.fset(self, samples)

    @property
    def task(self) -> TaskType:
        """Segmentation if any class has masks, else classification."""
        return TaskType.SEGMENTATION if self.samples["has_masks"].any() else TaskType.CLASSIFICATION

    def __getitem__(self, index: int) -> ClassImageItem:
        """Read an image by the dataset of its class.

        Args:
            index: Row of ``samples``.

        Returns:
            The item. ``gt_mask`` is zero for a normal image of a class with masks, and ``None`` for every image of a
            class without. Of depth data, only the RGB image is read.

        Raises:
            OSError: If the image or its mask cannot be read.
        """
        sample = self.samples.iloc[index]
        part = self.parts[sample.part]
        try:
            own_reading = type(part.dataset).__getitem__ is not AnomalibDataset.__getitem__
            if own_reading and not isinstance(part.dataset, AnomalibDepthDataset):
                item = part.dataset[sample.row]
            else:
                item = read_item(part.dataset, sample.row)
        except UNREADABLE as error:
            mask = f" or its mask {joined(mask_names(sample.mask_path))}" if sample.mask_path else ""
            advice = "Replace the broken file or remove it."
            if isinstance(error, FileNotFoundError):
                advice = "It was there when the data was set up: put it back, or start again without it."
            msg = f"Image {sample.image_path} of class {part.class_name!r}{mask} cannot be read: {error}. {advice}"
            raise OSError(msg) from error
        values = {field.name: getattr(item, field.name) for field in fields(ImageItem)}
        if not part.has_masks:  # some datasets make up zero masks
            values["gt_mask"] = None
        values["image_path"] = sample.image_path
        values["mask_path"] = joined(mask_names(sample.mask_path)) or None
        if self.augmentations is not None:
            kinds = [kind for kind in ("image", "gt_mask") if values[kind] is not None]
            augmented = self.augmentations(*(values[kind] for kind in kinds))
            values |= zip(kinds, augmented if len(kinds) > 1 else [augmented], strict=True)
        class_index = torch.tensor(int(sample.class_index))
        return ClassImageItem(**values, class_index=class_index, class_name=sample.class_name)

    def __add__(self, other_dataset: AnomalibDataset) -> MultiClassDataset:
        """Append the images of another :class:`MultiClassDataset`.

        Args:
            other_dataset: The images to add.

        Returns:
            A new dataset.

        Raises:
            TypeError: If the other is not a :class:`MultiClassDataset`.
        """
        if not isinstance(other_dataset, MultiClassDataset):
            msg = (
                f"Expected a MultiClassDataset to add, got a {type(other_dataset).__name__}. Give its datamodule as a "
                "further class to MultiClass(datamodules=[...])."
            )
            raise TypeError(msg)
        both = MultiClassDataset([*self.parts, *other_dataset.parts])
        others = other_dataset.samples.assign(part=other_dataset.samples["part"] + len(self.parts))
        both.samples = pd.concat([self.samples, others], ignore_index=True)
        return both

    @property
    def collate_fn(self) -> Callable[[list[ClassImageItem]], ClassImageBatch]:
        """Batches items with their classes."""
        return ClassImageBatch.collate


def read_item(dataset: AnomalibDataset, row: int) -> ImageItem:
    """Read an image and its masks as ``AnomalibDataset`` does, but the masks by :func:`read_masks`.

    Args:
        dataset: Dataset of the image.
        row: Row of its ``samples``.

    Returns:
        The item, with the dataset's augmentations. ``gt_mask`` is zero for a normal image.
    """
    sample = dataset.samples.iloc[row]
    with decoding():
        image = read_image(sample.image_path, as_tensor=True)
    files, mask = [Path(name) for name in mask_names(sample.mask_path)], None
    if dataset.task == TaskType.SEGMENTATION:
        marked = torch.from_numpy(read_masks(files)) if files else torch.zeros(image.shape[-2:])
        mask = Mask(marked, dtype=torch.uint8)
    if dataset.augmentations:
        image, mask = (dataset.augmentations(image), None) if mask is None else dataset.augmentations(image, mask)
    has_label = sample.label_index != LabelName.UNKNOWN
    return ImageItem(
        image=image,
        gt_mask=mask if has_label else None,
        gt_label=torch.tensor(sample.label_index) if has_label else None,
        image_path=sample.image_path,
    )


def _rows(number: int, part: ClassPart) -> pd.DataFrame:
    """Rows of one class, with ``row`` counting its dataset's own."""
    samples = part.dataset.samples
    return pd.DataFrame(
        {
            # A relative path lacks the folder above all classes, which distinguishes saved pictures.
            "image_path": [str(Path(path).absolute()) for path in samples["image_path"]],
            "split": samples["split"].to_list(),
            "label_index": samples["label_index"].astype("int64").to_list(),
            "mask_path": samples["mask_path"].to_list(),
            "class_index": part.class_index,
            "class_name": part.class_name,
            "has_masks": part.has_masks,
            "part": number,
            "row": range(len(samples)),
        },
    )


def name_synthetic_images(data: SyntheticAnomalyDataset, folder: Path) -> None:
    """Move synthetic images to a path that contains their class, so that the paths of saved pictures contain it too.

    Args:
        data: The images, which anomalib writes to a temporary folder with the same file names for each class.
        folder: Name of the datamodule, then of the class.
    """
    named = data.root / folder / data.im_dir.name
    if data.im_dir.is_dir():  # else they have been moved along with another subset
        named.parent.mkdir(parents=True)
        data.im_dir.rename(named)
    data.samples["image_path"] = data.samples["image_path"].str.replace(str(data.im_dir), str(named), regex=False)


class MaskBatchSampler(BatchSampler):
    """Batches that never mix images of classes with and without masks.

    A batch can hold ``gt_mask`` for all of its images or for none. Mixed batches would lose masks, and so change the
    pixel-level metrics and the pixel threshold. The order of the images is kept; a batch ends early where an image with
    masks follows one without, or the other way round.

    Lightning rebuilds batch samplers around its own sampler to predict and to run on several devices. Device r of R
    gets the images r, r + R, r + 2R and so on. Its batches end where the kind changes on any device, so that all
    devices have the same number of batches, as collective operations require.

    Args:
        sampler: Row numbers of the dataset, in order.
        batch_size: Maximum number of images in a batch.
        drop_last: Drop batches that are not full.
        has_masks: For each row of the dataset, whether its class has masks. Lightning does not pass it on for a loader
            that was not created through the trainer; then it is read from the dataset of a sequential sampler.

    Raises:
        ValueError: If ``has_masks`` is not given and the sampler is not sequential.
    """

    def __init__(
        self,
        sampler: Sampler[int] | Iterable[int],
        batch_size: int,
        drop_last: bool,
        has_masks: Sequence[bool] | None = None,
    ) -> None:
        super().__init__(sampler, batch_size, drop_last)
        if has_masks is None:
            data = getattr(sampler, "data_source", None)
            if not isinstance(data, MultiClassDataset):
                msg = (
                    "Expected a SequentialSampler of a MultiClassDataset to know which images have masks, got "
                    f"{type(sampler).__name__}. Give the trainer or engine the datamodule instead of its dataloader."
                )
                raise ValueError(msg)
            has_masks = data.samples["has_masks"].to_list()
        self.has_masks = has_masks

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each batch."""
        for _, run in groupby(enumerate(self.sampler), key=self._kind):
            indices = [index for _, index in run]
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                if len(batch) == self.batch_size or not self.drop_last:
                    yield batch

    def _kind(self, position_and_index: tuple[int, int]) -> tuple[bool, ...]:
        """Whether the class of an image has masks, and those of the other devices' images at this position."""
        position, index = position_and_index
        devices = getattr(self.sampler, "num_replicas", 1)
        # A distributed sampler starts from the beginning where the last devices have no images left.
        others = range(position * devices, (position + 1) * devices) if devices > 1 else ()
        return (self.has_masks[index], *(self.has_masks[other % len(self.has_masks)] for other in others))

    def __len__(self) -> int:
        """Count the batches by a pass over the sampler."""
        return sum(1 for _ in self)

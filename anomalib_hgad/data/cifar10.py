# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""CIFAR-10 in the semantic protocol: some of its classes are normal, the others are the anomalies.

Sources: You et al., A Unified Model for Multi-class Anomaly Detection (UniAD), NeurIPS 2022,
https://arxiv.org/abs/2206.03687, for many classes against many; one class against nine is older.
"""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments for the config schema.

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName, Split, ValSplitMode
from lightning.pytorch.utilities.types import EVAL_DATALOADERS
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity
from torchvision.transforms.v2 import Transform

from anomalib_hgad.common.files import atomic_folder
from anomalib_hgad.common.progress import track
from anomalib_hgad.data.batch import NO_CLASS, ClassImageBatch, ClassImageItem
from anomalib_hgad.data.random_numbers import own_random_numbers
from anomalib_hgad.data.reading import naming_errors
from anomalib_hgad.data.splits import check_splits
from anomalib_hgad.data.workers import usual_workers

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Names of the classes, in the order of CIFAR-10's numbers from 0."""

MANY_VERSUS_MANY = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 2, 4, 6, 8), (1, 3, 5, 7, 9))
"""Normal classes of UniAD's four splits; the other five classes are anomalous."""

VALIDATIONS = tuple(mode for mode in ValSplitMode if mode != ValSplitMode.FROM_DIR)
"""Supported validation modes; CIFAR-10 has no folder of validation images."""


class Cifar10(AnomalibDataModule):
    """CIFAR-10 with the images of some classes as normal images, and those of all other classes as anomalies.

    Models are trained on the training images of the normal classes, and tested on all 10 000 test images. The normal
    classes are the product classes: batches and items carry ``class_index`` and ``class_name``. An anomalous image
    carries the name of its class and the index -1, as it belongs to none of the products. There are no masks.

    The images stay 32 x 32; a model's pre-processor resizes them. Because anomalib's visualizers and inferencers read
    images from files, :meth:`prepare_data` writes each once as a PNG file to ``ROOT/Cifar10/train/CLASS`` or
    ``ROOT/Cifar10/test/CLASS``, named by its number in torchvision's dataset.

    Args:
        root: Folder with the subfolder ``cifar-10-batches-py`` of torchvision's ``CIFAR10``, which is downloaded if
            missing.
            Defaults to ``"./datasets"``.
        normal_classes: Names or numbers (0 to 9) of the normal classes, in any order. UniAD's four splits are
            :data:`MANY_VERSUS_MANY`; a single class is one against nine.
            Defaults to ``(0, 1, 2, 3, 4)``, the first of the four.
        train_batch_size: Training batch size.
            Defaults to ``32``.
        eval_batch_size: Validation, test and prediction batch size.
            Defaults to ``32``.
        num_workers: Number of workers for data loading.
            Defaults to ``None``, one for each available core, at most 8.
        train_augmentations: Augmentations of the training images.
            Defaults to ``None``.
        val_augmentations: Augmentations of the validation images.
            Defaults to ``None``.
        test_augmentations: Augmentations of the test images.
            Defaults to ``None``.
        augmentations: Augmentations for stages without their own.
            Defaults to ``None``.
        val_split_mode: ``"same_as_test"``; ``"from_test"`` and ``"from_train"`` split images off that subset;
            ``"synthetic"`` uses training images and turns half of them into synthetic anomalies; ``"none"``.
            Defaults to ``"same_as_test"``.
        val_split_ratio: Fraction of the images to split off.
            Defaults to ``0.5``.
        seed: Seed of the random split: the same files are always split in the same way.
            Defaults to ``None``, for ``0``.

    Raises:
        ValueError: If a normal class is unknown or named twice, if none or all classes are normal, or if
            ``val_split_mode`` is not one of the above.

    Example:
        >>> datamodule = Cifar10(normal_classes=["cat", 0])
        >>> datamodule.class_names
        ['airplane', 'cat']
    """

    _is_setup: bool
    train_data: AnomalibDataset

    def __init__(
        self,
        root: str | Path = "./datasets",
        normal_classes: Sequence[int | str] = MANY_VERSUS_MANY[0],
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int | None = None,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = None,
    ) -> None:
        if val_split_mode not in VALIDATIONS:
            msg = f"Expected val_split_mode to be one of {', '.join(VALIDATIONS)}; got {str(val_split_mode)!r}."
            raise ValueError(msg)
        check_splits({"val_split_ratio": val_split_ratio})
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=usual_workers() if num_workers is None else num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        self.root = Path(root)
        self.class_names = _normal_class_names(normal_classes)

    @property
    def image_folder(self) -> Path:
        """Folder of the PNG files, named like the datamodule: anomalib saves pictures of results under this name."""
        return self.root / self.name

    def prepare_data(self) -> None:
        """Write the images as PNG files if they do not exist yet, and download CIFAR-10 first if needed.

        Raises:
            RuntimeError: If CIFAR-10 is missing, or one of its files is broken, and the download fails.
            OSError: If the files cannot be written.
        """
        if self.image_folder.is_dir():
            return
        try:
            subsets = {
                Split.TRAIN.value: CIFAR10(self.root, train=True, download=True),
                Split.TEST.value: CIFAR10(self.root, train=False),
            }
        except Exception as error:
            folder = self.root / CIFAR10.base_folder
            msg = (
                f"CIFAR-10 is not complete in {folder} ({_faults(folder)}) and could not be downloaded from "
                f"{CIFAR10.url}: {error}. Download it on another machine, and put the archive {CIFAR10.filename} "
                f"into {self.root} or its files into {folder}."
            )
            raise RuntimeError(msg) from error
        _write_images(subsets, self.image_folder)

    def setup(self, stage: str | None = None) -> None:
        """Find the images on the first call, and apply the model's resizing on every call.

        Args:
            stage: Unused.

        Raises:
            FileNotFoundError: If the images do not exist.
        """
        if not self._is_setup:
            self._setup(stage)
            with own_random_numbers(self.seed):
                self._create_val_split()
            self._is_setup = True
        self._update_augmentations()

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = Cifar10Dataset(self.image_folder, Split.TRAIN, self.class_names)
        self.test_data = Cifar10Dataset(self.image_folder, Split.TEST, self.class_names)

    def val_dataloader(self) -> EVAL_DATALOADERS:
        """Get the validation batches; none if there are no validation images."""
        return [] if self.val_split_mode == ValSplitMode.NONE else super().val_dataloader()


class Cifar10Dataset(AnomalibDataset):
    """Training or test images of CIFAR-10.

    Args:
        folder: Folder with subfolders ``train/CLASS`` and ``test/CLASS`` of images.
        split: ``train`` uses the normal classes only, ``test`` all.
        normal_names: Names of the normal classes, in the order of ``class_index``.

    Raises:
        FileNotFoundError: If the folder of a class is missing.
    """

    def __init__(self, folder: Path, split: Split, normal_names: Sequence[str]) -> None:
        super().__init__()
        rows = []
        for name in normal_names if split == Split.TRAIN else CLASSES:
            images = folder / split.value / name
            if not images.is_dir():
                msg = f"Expected the images of CIFAR-10's class {name!r} in {images}, but the folder does not exist. "
                msg += f"Call prepare_data() first; if {folder} is incomplete, remove it before that."
                raise FileNotFoundError(msg)
            normal = name in normal_names
            row = {
                "split": split.value,
                "label_index": int(LabelName.NORMAL if normal else LabelName.ABNORMAL),
                "mask_path": "",
                "class_index": normal_names.index(name) if normal else NO_CLASS,
                "class_name": name,
            }
            rows += [{"image_path": str(path)} | row for path in images.iterdir()]
        self.samples = pd.DataFrame(rows)
        self.samples.attrs["task"] = TaskType.CLASSIFICATION.value

    def __getitem__(self, index: int) -> ClassImageItem:
        """Read an image.

        Args:
            index: Row of ``samples``.

        Returns:
            The item: RGB in [0, 1], float32, shape (3, 32, 32), without augmentations.

        Raises:
            OSError: If the image cannot be read.
        """
        sample = self.samples.iloc[index]
        with naming_errors(sample.image_path):
            item = super().__getitem__(index)
        return ClassImageItem(
            image=item.image,
            gt_label=item.gt_label,
            image_path=item.image_path,
            class_index=torch.tensor(int(sample.class_index)),
            class_name=sample.class_name,
        )

    @property
    def collate_fn(self) -> Callable[[list[ClassImageItem]], ClassImageBatch]:
        """Batches items with their classes."""
        return ClassImageBatch.collate


def _normal_class_names(classes: Sequence[int | str]) -> list[str]:
    """Names of the given classes, in CIFAR-10's order; see :class:`Cifar10`."""
    advice = f"Give a list of names or numbers of some of them: {', '.join(f'{i} {n}' for i, n in enumerate(CLASSES))}."
    if isinstance(classes, str):
        msg = f"Expected a list of normal_classes, got {classes!r}. {advice}"
        raise ValueError(msg)  # noqa: TRY004 - a text is a sequence too
    known = [*CLASSES, *range(len(CLASSES))]
    if unknown := [name for name in classes if name not in known]:
        msg = f"CIFAR-10 has no class {', '.join(map(repr, unknown))}. {advice}"
        raise ValueError(msg)
    names = [name if isinstance(name, str) else CLASSES[name] for name in classes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"Expected each of normal_classes once, got twice: {', '.join(twice)}. Remove one."
        raise ValueError(msg)
    if not 0 < len(names) < len(CLASSES):
        msg = f"Expected 1 to {len(CLASSES) - 1} normal_classes, for the others to be anomalous; got {len(names)}. "
        raise ValueError(msg + advice)
    return sorted(names, key=CLASSES.index)


def _faults(folder: Path) -> str:
    """Missing and broken files of CIFAR-10 in a folder, according to torchvision's list."""
    files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    missing = [name for name, _ in files if not (folder / name).is_file()]
    broken = [name for name, md5 in files if name not in missing and not check_integrity(folder / name, md5)]
    faults = {"missing": missing, "broken": broken}
    return "; ".join(f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names) or "all files exist"


def _write_images(subsets: dict[str, CIFAR10], folder: Path) -> None:
    """Write images as PNG files; an interrupted write leaves no incomplete folder behind.

    Args:
        subsets: Images by the name of their split.
        folder: Folder for the files ``SPLIT/CLASS/NUMBER.png``.
    """
    with atomic_folder(folder) as unfinished:
        for split, images in subsets.items():
            for name in CLASSES:
                (unfinished / split / name).mkdir(parents=True)
            described = f"Writing the {split} images to {folder}"
            for number, (pixels, target) in enumerate(zip(track(images.data, described), images.targets, strict=True)):
                Image.fromarray(pixels).save(unfinished / split / images.classes[target] / f"{number:05}.png")

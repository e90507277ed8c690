# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""One datamodule for many product classes, for any anomalib model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import TestSplitMode, ValSplitMode
from lightning.pytorch.utilities.types import EVAL_DATALOADERS
from torch.utils.data import DataLoader, SequentialSampler
from torchvision.transforms.v2 import Transform

from anomalib_hgad.common.checks import check_folder_names
from anomalib_hgad.data.argument_checks import as_text, check_argument_types
from anomalib_hgad.data.batch import batching_with_classes, cuts_tiles
from anomalib_hgad.data.checks import check_one_class, check_pictures, clashing_pictures, picture_folder_name
from anomalib_hgad.data.dataset import ClassPart, MaskBatchSampler, MultiClassDataset
from anomalib_hgad.data.file_uses import FileUses
from anomalib_hgad.data.folders import listed
from anomalib_hgad.data.layouts import FolderNames
from anomalib_hgad.data.letters import accept_all_letters
from anomalib_hgad.data.pseudo_labels import Labels, PseudoLabels
from anomalib_hgad.data.setup import SUBSETS, check_and_mark_masks, set_up_class
from anomalib_hgad.data.sources import sources_of_datamodules, sources_of_dataset, sources_of_folders
from anomalib_hgad.data.splits import check_splits
from anomalib_hgad.data.workers import usual_workers


class MultiClass(AnomalibDataModule):
    """Many product classes in one anomalib datamodule.

    Works with every anomalib model. Batches and items carry ``class_index`` and ``class_name``. Each class keeps its
    own splits, masks and augmentations. Classes with and without masks can be combined: images of a class without
    masks have no ``gt_mask`` and never share an evaluation batch with images of a class with masks, so that pixel-level
    metrics cover the classes with masks.

    The classes are given in one of three forms:

    - ``datamodules``: one anomalib datamodule for each class, in this order. A ``MultiClass`` among them contributes
      all its classes. A class is named after its category, or else after its datamodule; if two datasets have a class
      of the same name, both are named ``DATASET_CLASS``.
    - ``dataset``: the categories of one of anomalib's datasets, sorted.
    - ``root`` only: its subfolders, sorted, in MVTec layout (``train/good``, ``test/good``, ``test/KIND``,
      ``ground_truth/KIND``) or with folders named by ``normal_dir``, ``normal_test_dir``, ``abnormal_dir`` and
      ``mask_dir``. Each is split as by anomalib's ``MVTecAD`` or ``Folder``. A class without masks gets image-level
      metrics only.

    Args:
        datamodules: One datamodule for each class.
            Defaults to ``None``.
        dataset: Name of an anomalib datamodule that has a ``category``, such as ``MVTecAD``.
            Defaults to ``None``.
        root: Folder of the dataset, or folder whose subfolders are the classes.
            Defaults to ``None``, for the dataset's own default.
        categories: Categories or subfolders to use.
            Defaults to ``None``, for all that exist.
        normal_dir: Folder of normal training images in each subfolder of ``root``, or several.
            Defaults to ``None``, for MVTec layout.
        normal_test_dir: Folder of normal test images, likewise.
            Defaults to ``None``.
        abnormal_dir: Folder of anomalous test images, likewise.
            Defaults to ``None``.
        mask_dir: Folder of masks, likewise; one for each ``abnormal_dir``.
            Defaults to ``None``.
        train_batch_size: Training batch size.
            Defaults to ``32``.
        eval_batch_size: Validation, test and prediction batch size.
            Defaults to ``32``.
        num_workers: Number of workers for data loading.
            Defaults to ``None``, one for each available core, at most 8.
        train_augmentations: Augmentations of the training images. This setting and those below, down to ``seed``, apply
            to each class; with ``datamodules``, set them there.
            Defaults to ``None``.
        val_augmentations: Augmentations of the validation images.
            Defaults to ``None``.
        test_augmentations: Augmentations of the test images.
            Defaults to ``None``.
        augmentations: Augmentations for stages without their own.
            Defaults to ``None``.
        test_split_mode: How each class gets its test images; ``"none"`` skips the test.
            Defaults to ``None``, for the default of the class's datamodule.
        test_split_ratio: Fraction of the images to use for testing.
            Defaults to ``None``, likewise.
        val_split_mode: How each class gets its validation images.
            Defaults to ``None``, likewise.
        val_split_ratio: Fraction of the images to use for validation.
            Defaults to ``None``, likewise.
        seed: Seed of the random splits and synthetic anomalies: the same files are always split in the same way.
            Defaults to ``None``, for that of the class's datamodule or else ``0``.
        labels: ``"given"`` uses the class names above; ``"cluster"`` finds classes by clustering the training images,
            regardless of their folders; ``"references"`` assigns the class whose reference images an image resembles
            most.
            Defaults to ``"given"``.
        num_clusters: Number of clusters. ``None`` chooses it automatically.
            Defaults to ``None``.
        references: Folder with a subfolder of a few reference images for each class.
            Defaults to ``None``.
        label_backbone: timm model whose features are compared, for clusters and references.
            Defaults to ``"resnet18"``.
        label_weights: Local file with its weights. ``None`` downloads them.
            Defaults to ``None``.
        name: Name of the folder that contains all classes: saved pictures keep the part of the image path below it.
            anomalib's tiled ensemble needs it to be set here.
            Defaults to ``None``, for the deepest folder that contains all classes.

    Raises:
        ValueError: If not exactly one form is chosen, if an argument cannot be combined with it, if a class is named
            twice, or if ``name`` is not that of a folder.
        FileNotFoundError: If a folder is missing.
        TypeError: If a datamodule is not for images, or an argument has another type.

    Example:
        >>> from anomalib.data import MVTecAD, Visa
        >>> datamodule = MultiClass(datamodules=[MVTecAD(category="bottle"), Visa(category="candle")])
        >>> datamodule.class_names
        ['bottle', 'candle']
        >>> datamodule = MultiClass(dataset="MVTecAD", root="./datasets/MVTecAD", categories=["bottle", "cable"])
        >>> datamodule = MultiClass(  # doctest: +SKIP
        ...     root="./products", normal_dir="good", abnormal_dir="bad", mask_dir="masks"
        ... )
    """

    _is_setup: bool
    train_data: MultiClassDataset

    def __init__(
        self,
        datamodules: list[AnomalibDataModule] | None = None,
        dataset: str | None = None,
        root: str | Path | None = None,
        categories: list[str] | None = None,
        normal_dir: list[str] | str | None = None,
        normal_test_dir: list[str] | str | None = None,
        abnormal_dir: list[str] | str | None = None,
        mask_dir: list[str] | str | None = None,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int | None = None,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        test_split_mode: TestSplitMode | str | None = None,
        test_split_ratio: float | None = None,
        val_split_mode: ValSplitMode | str | None = None,
        val_split_ratio: float | None = None,
        seed: int | None = None,
        labels: Labels = "given",
        num_clusters: int | None = None,
        references: str | Path | None = None,
        label_backbone: str = "resnet18",
        label_weights: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        num_workers = usual_workers() if num_workers is None else num_workers
        super().__init__(train_batch_size, eval_batch_size, num_workers)
        accept_all_letters()
        of_each_class = {
            "train_augmentations": train_augmentations,
            "val_augmentations": val_augmentations,
            "test_augmentations": test_augmentations,
            "augmentations": augmentations,
            "test_split_mode": test_split_mode,
            "test_split_ratio": test_split_ratio,
            "val_split_mode": val_split_mode,
            "val_split_ratio": val_split_ratio,
            "seed": seed,
        }
        given = {name: value for name, value in of_each_class.items() if value is not None}
        check_argument_types(datamodules, dataset, categories, given)
        check_splits(given)
        folders = FolderNames(*map(as_text, (normal_dir, normal_test_dir, abnormal_dir, mask_dir)))
        named = {name: value for name, value in vars(folders).items() if value is not None}
        if datamodules and dataset is None and root is None:
            _refuse({"categories": categories, **named, **given}, "datamodules", "Set it in the datamodules instead")
            self.sources = sources_of_datamodules(datamodules)
        elif dataset is not None and not datamodules:
            _refuse(named, "dataset", "Leave it out, or leave out dataset")
            self.sources = sources_of_dataset(dataset, root, categories, **given)
        elif root is not None and not datamodules:
            self.sources = sources_of_folders(root, categories, folders, **given)
        else:
            msg = (
                "Expected one of: datamodules; dataset (with or without root); root only. Got "
                f"datamodules={datamodules}, dataset={dataset!r}, root={root!r}. Give exactly one of them."
            )
            raise ValueError(msg)
        self.pseudo_labels = PseudoLabels(labels, num_clusters, references, label_backbone, label_weights)
        self._pseudo_names: list[str] = list(self.pseudo_labels.reference_images()) if labels == "references" else []
        if name is not None:
            check_folder_names("MultiClass", [name])
        self._given_name = name
        self._name = name or picture_folder_name([source.datamodule for source in self.sources])

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; a class's position is its ``class_index``. Clusters have names after :meth:`setup`."""
        if self.pseudo_labels.kind == "given":
            return [source.name for source in self.sources]
        return list(self._pseudo_names)

    @property
    def name(self) -> str:
        """Name of the folder that contains all classes: saved pictures keep the part of the image path below it."""
        return self._name or super().name

    @property
    def external_collate_fn(self) -> Callable[..., Any] | None:
        """Collate function used instead of the default; anomalib's tiled ensemble sets one that cuts out a tile."""
        return self._external_collate_fn

    @external_collate_fn.setter
    def external_collate_fn(self, collate: Callable[..., Any] | None) -> None:
        self._external_collate_fn = batching_with_classes(collate)
        if cuts_tiles(collate):
            self._check_for_tiled_ensemble()

    def _check_for_tiled_ensemble(self) -> None:
        datasets = [getattr(self, subset).samples for subset in SUBSETS if hasattr(self, subset)]
        without = sorted({name for samples in datasets for name in samples["class_name"][~samples["has_masks"]]})
        if without:
            msg = f"The tiled ensemble needs masks of all classes, but {listed(without)} has none. Add masks, or "
            msg += "exclude the class with categories."
            raise ValueError(msg)
        paths = [path for samples in datasets for path in samples["image_path"]]
        # The ensemble reads the name from a datamodule's settings, not from the datamodule.
        if clashing := clashing_pictures(paths, self._given_name or type(self).__name__):
            msg = f"The tiled ensemble would save pictures of {len(clashing)} images to the same files: "
            msg += f"{listed(clashing)}. Give MultiClass the folder that contains all classes: name={self.name!r}."
            warnings.warn(msg, stacklevel=3)

    def prepare_data(self) -> None:
        """Let the datamodule of each class download missing data."""
        for source in self.sources:
            try:
                source.datamodule.prepare_data()
            except Exception as error:
                root = getattr(source.datamodule, "root", None)
                msg = (
                    f"Class {source.name!r} was not found in {root} and could not be downloaded: {error} "
                    "Correct root, or provide the data."
                )
                raise RuntimeError(msg) from error

    def setup(self, stage: str | None = None) -> None:
        """Split and check the images of all classes on the first call, and apply the model's resizing on every call.

        Args:
            stage: Stage passed to the datamodules of the classes.

        Raises:
            ValueError: If images or masks of a class are invalid.
        """
        if not self._is_setup:
            self._setup(stage)
            self._is_setup = True
        self._update_augmentations()

    def _setup(self, _stage: str | None = None) -> None:
        parts: dict[str, list[ClassPart]] = {subset: [] for subset in SUBSETS}
        uses = FileUses()
        for index, source in enumerate(self.sources):
            subsets = set_up_class(source, _stage, self.name)
            uses.add(source.name, subsets)
            has_masks = check_and_mark_masks(source.name, subsets)
            for subset, data in subsets.items():
                parts[subset].append(ClassPart(index, source.name, data, has_masks[subset]))
        for subset, its_parts in parts.items():
            if its_parts:
                setattr(self, subset, MultiClassDataset(its_parts))
        if self.pseudo_labels.kind == "given":
            check_one_class(self.train_data.samples)
        else:
            samples = [getattr(self, subset).samples for subset in SUBSETS if parts[subset]]
            self._pseudo_names = self.pseudo_labels.label(samples)
        if parts["test_data"]:
            check_pictures(self.test_data.samples["image_path"], self.name)

    def _update_augmentations(self) -> None:
        """Let the datamodule of each class set its augmentations and the model's resizing in its datasets."""
        for source in self.sources:
            source.datamodule.trainer = self.trainer
            source.datamodule._update_augmentations()

    def val_dataloader(self) -> EVAL_DATALOADERS:
        """Get the validation batches; none if no class has validation images."""
        return self._eval_dataloader("val_data")

    def test_dataloader(self) -> EVAL_DATALOADERS:
        """Get the test batches; none if no class has test images."""
        return self._eval_dataloader("test_data")

    def _eval_dataloader(self, subset: str) -> EVAL_DATALOADERS:
        data: AnomalibDataset | None = getattr(self, subset, None)
        if data is None:
            return []
        has_masks = data.samples["has_masks"].to_list()
        return DataLoader(
            dataset=data,
            batch_sampler=MaskBatchSampler(
                SequentialSampler(data), self.eval_batch_size, drop_last=False, has_masks=has_masks
            ),
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or data.collate_fn,
        )


def _refuse(arguments: dict[str, Any], form: str, advice: str) -> None:
    """Raise if arguments are given that cannot be combined with the chosen form."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        msg = f"{', '.join(given)} cannot be given together with {form}. {advice}."
        raise ValueError(msg)

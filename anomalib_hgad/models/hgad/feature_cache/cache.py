# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Computes the features of a training's images once, and lets the training read them in place of the images.

The backbone is frozen, so that without augmentation an image has the same features in every epoch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.models import AnomalibModule
from lightning.pytorch import LightningDataModule, Trainer
from platformdirs import user_cache_path
from torch.utils.data import ConcatDataset

from anomalib_hgad.common.memory import available_memory, is_out_of_memory
from anomalib_hgad.common.processes import gather_objects
from anomalib_hgad.models.hgad.feature_cache.dataset import FeatureDataset
from anomalib_hgad.models.hgad.feature_cache.key import content_key, file_digest, image_size
from anomalib_hgad.models.hgad.feature_cache.store import (
    FILE_BYTES,
    FileFeatures,
    MemoryFeatures,
    Shapes,
    check_folder,
    is_intact,
    write_shard,
)
from anomalib_hgad.models.hgad.normal_pass import ordered_batches

logger = logging.getLogger(__name__)

MEMORY_SHARE = 0.5
"""Maximum share of the free main memory for features; if they need more, they go to files."""


class FeatureCache:
    """Computes features for a training to read.

    One process keeps them in main memory if they fit; otherwise they go to files, which later trainings with the same
    images, backbone and pre-processing use again. Of several processes on a machine each computes its share.

    Args:
        setting: Whether to cache features, or the folder of the files. ``True`` uses the user's cache folder.
    """

    def __init__(self, setting: bool | str | Path) -> None:
        # No Path: the model is pickled for export, and Windows cannot unpickle a path of Linux.
        self.setting = setting if isinstance(setting, bool) else str(setting)

    def features(
        self, trainer: Trainer, module: AnomalibModule, held_out: AnomalibDataset | None
    ) -> tuple[FeatureDataset, FeatureDataset | None] | None:
        """Compute or find the features of the training images and of those that are held out.

        Args:
            trainer: Trainer of the running fit.
            module: The model, with its weights and on its device.
            held_out: Images that are held out of the training, if there are any.

        Returns:
            Datasets of them; ``None`` if the cache is off or, with a warning, if the features cannot be kept.

        Raises:
            OSError: If the files cannot be written.
            ValueError: If features exceed the range of the numbers in the files.
            RuntimeError: If the processes of a machine do not share the folder.
        """
        if self.setting is False:
            return None
        try:
            datasets, size = _cacheable(getattr(trainer, "datamodule", None), module, held_out)
        except ValueError as reason:
            if trainer.is_global_zero:
                logger.warning("The features are computed again in every epoch, as %s.", reason)
            return None
        folder = user_cache_path("anomalib-hgad") if self.setting is True else Path(self.setting).expanduser()
        features = _Filling(trainer, module, datasets, size).features(folder)
        training = FeatureDataset(datasets[0], features, first=0)
        if held_out is None:
            return training, None
        return training, FeatureDataset(held_out, features, first=len(datasets[0]))


def _cacheable(
    datamodule: LightningDataModule | None, module: AnomalibModule, held_out: AnomalibDataset | None
) -> tuple[list[AnomalibDataset], tuple[int, int]]:
    """Return the training images, those held out if there are any, and their height and width.

    Raises:
        ValueError: If their features cannot be kept. The message says why.
    """
    if not isinstance(datamodule, AnomalibDataModule) or datamodule.external_collate_fn is not None:
        msg = "the training images do not all come from an anomalib datamodule"
        raise ValueError(msg)
    datasets = [images for images in (datamodule.train_data, held_out) if images is not None]
    if module.model.num_classes > 1 and not all("class_name" in images.samples for images in datasets):
        msg = "the dataset does not tell the classes of its images before they are read"
        raise ValueError(msg)
    return datasets, image_size(datasets, _transform(module))


def _transform(module: AnomalibModule) -> Any:  # noqa: ANN401
    return getattr(module.pre_processor, "transform", None)


class _Filling:
    """Computes the features of images, or finds them in files.

    Args:
        trainer: Trainer of the running fit.
        module: The model.
        datasets: The images.
        size: Their height and width.
    """

    def __init__(
        self, trainer: Trainer, module: AnomalibModule, datasets: list[AnomalibDataset], size: tuple[int, int]
    ) -> None:
        self.trainer = trainer
        self.module = module
        self.datasets = datasets
        self.count = sum(len(images) for images in datasets)
        self.processes = trainer.world_size // trainer.num_nodes
        """Processes on this machine; machines share nothing, as their folders may not be the same."""
        blank = torch.zeros(1, 3, *size, device=module.device)
        transform = _transform(module)
        levels = self._encode(blank if transform is None else transform(blank))
        self.shapes: Shapes = [(level.shape[1], level.shape[2], level.shape[3]) for level in levels]
        self.dtype = torch.promote_types(levels[0].dtype, torch.float32)

    def features(self, folder: Path) -> MemoryFeatures | FileFeatures:
        """Return the features of all images, in files of a folder if they do not fit into main memory."""
        needed = self._bytes(self.count, self.dtype.itemsize)
        if self.trainer.world_size == 1 and needed <= MEMORY_SHARE * available_memory():
            try:
                return self._in_memory()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                # Other processes take memory too, and the system does not report a limit of this process alone.
                logger.warning("The features do not fit into main memory after all (%s): using files instead.", error)
        return self._in_files(folder)

    def _in_memory(self) -> MemoryFeatures:
        store = MemoryFeatures(self.count, self.shapes, self.dtype)
        store.fill(self._batches())
        return store

    def _bytes(self, images: int, bytes_of_number: int) -> int:
        return images * sum(math.prod(shape) for shape in self.shapes) * bytes_of_number

    def _in_files(self, folder: Path) -> FileFeatures:
        key = content_key(
            self.datasets, self._digests(), self.module.model.encoder, _transform(self.module), self.trainer.precision
        )
        paths = [folder / f"{key}-{rank}-of-{self.processes}.npy" for rank in range(self.processes)]
        counts = [len(self._rows(rank)) for rank in range(self.processes)]
        absent = [rank for rank in range(self.processes) if not is_intact(paths[rank], counts[rank], self.shapes)]
        if absent:
            check_folder(folder, sum(self._bytes(counts[rank], FILE_BYTES) for rank in absent))
        # No process writes before all have checked the free space.
        self.trainer.strategy.barrier("hgad_cache_checked")
        own = self.trainer.local_rank
        if own in absent:
            if paths[own].exists():
                logger.warning(
                    "%s is not an intact file of this feature cache: its features are computed again.", paths[own]
                )
            write_shard(paths[own], counts[own], self.shapes, self._batches())
        self.trainer.strategy.barrier("hgad_cache_written")
        missing = [path for path, count in zip(paths, counts, strict=True) if not is_intact(path, count, self.shapes)]
        if missing:
            msg = f"Another process of this machine should have written {missing[0]}, but it does not exist. Use a "
            msg += "folder that all processes share, feature_cache=FOLDER, or turn the cache off, feature_cache=False."
            raise RuntimeError(msg)
        if self.trainer.is_global_zero:
            logger.info("The features of %d images are in %s.", self.count, folder)
        return FileFeatures(paths)

    def _rows(self, rank: int) -> range:
        """Rows of the images whose features a process of this machine computes."""
        return range(rank, self.count, self.processes)

    def _digests(self) -> list[str]:
        """Compute digests of the image files, each read by one process of this machine."""
        paths = [path for images in self.datasets for path in images.samples["image_path"]]
        own = {row: file_digest(paths[row]) for row in self._rows(self.trainer.local_rank)}
        node = self.trainer.node_rank
        of_rows: dict[int, str] = {}
        for its_node, digests in gather_objects((node, own)):
            of_rows |= digests if its_node == node else {}
        return [of_rows[row] for row in range(self.count)]

    def _batches(self) -> Iterator[list[torch.Tensor]]:
        """Yield the features that this process computes, in main memory."""
        rows = self._rows(self.trainer.local_rank)
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        batches = ordered_batches(
            self.trainer,
            self.module,
            ConcatDataset(self.datasets),
            rows,
            batch_size=datamodule.train_batch_size,
            num_workers=datamodule.num_workers,
            collate_fn=self.datasets[0].collate_fn,
            description="Computing the features",
        )
        for batch in batches:
            yield [level.cpu() for level in self._encode(cast("torch.Tensor", batch.image))]

    def _encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute features as the training does."""
        with self.trainer.precision_plugin.forward_context():
            return self.module.model.encoder(images)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of predictions, none of which overwrites another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from anomalib.data import ImageBatch, ImageItem
from anomalib.models import AnomalibModule
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.data.folders import common_folder
from anomalib_hgad.evaluation.picture_selection import Group, PictureSelection


class SeparatePictures(ImageVisualizer):
    """anomalib's visualizer with a separate picture for every image.

    anomalib keeps only the last folder of an image path that does not contain the name of the datamodule: the pictures
    of ``bolt/cam1/0.png`` and ``nut/cam1/0.png`` are one file. Here a prediction keeps all folders below the predicted
    one. If a picture already exists, the new one is ``0_1.png``; only a test replaces those of an earlier test.
    """

    _taken: set[Path]
    _root: Path | None

    @classmethod
    def take_over(cls, visualizer: object) -> None:
        """Turn a visualizer of anomalib into one of these; user-defined subclasses stay unchanged."""
        if type(visualizer) is ImageVisualizer:
            visualizer.__class__ = cls

    def on_test_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Forget the pictures of an earlier run."""
        del trainer, pl_module
        self._taken = set()

    on_predict_start = on_test_start

    @property
    def written(self) -> int:
        """Number of pictures of the last run."""
        return len(self._taken)

    @property
    def note(self) -> str:
        """Which images the pictures show."""
        return f"all {self.written} images"

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save the pictures of a batch, of a test or of a prediction."""
        del pl_module, outputs
        if batch_idx == 0:
            self._root = _predicted_folder(trainer, dataloader_idx)
        for item in batch:
            place = self._free(self._place(item, trainer), replaces=trainer.state.fn == TrainerFn.TESTING)
            if not self._is_wanted(item, place, trainer):
                continue
            picture = self.visualize(item)
            if picture is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                picture.save(place)
                self._taken.add(place)

    def folder(self, trainer: Trainer) -> Path:
        """Folder of the pictures; not stored, unlike in anomalib: the next run of the model may have another one."""
        return Path(self.output_dir or Path(trainer.default_root_dir) / "images")

    def _is_wanted(self, item: ImageItem, place: Path, trainer: Trainer) -> bool:
        """Whether to save a picture of an image."""
        del item, place, trainer
        return True

    def _place(self, item: ImageItem, trainer: Trainer) -> Path:
        """Where a picture belongs."""
        folder = self.folder(trainer)
        path = Path(item.image_path or "").absolute()
        if self._root is not None and path.is_relative_to(self._root):
            return folder / path.relative_to(self._root)
        datamodule = getattr(trainer, "datamodule", None)
        names = {"dataset_name": getattr(datamodule, "name", None), "category": getattr(datamodule, "category", None)}
        return Path(generate_output_filename(path, folder, **names, mkdir=False))

    def _free(self, place: Path, *, replaces: bool) -> Path:
        """The same path, or with a number if another picture exists there."""
        places = (place.with_stem(f"{place.stem}_{number}") if number else place for number in count())
        return next(free for free in places if free not in self._taken and (replaces or not free.exists()))


class SomePictures(SeparatePictures):
    """Pictures of the worst images of a test and a sample of the others; a prediction has pictures of all images.

    See :class:`~anomalib_hgad.evaluation.picture_selection.PictureSelection`. A test of thousands of images would write
    gigabytes of pictures, few of which are viewed. An ``ImageVisualizer`` instead of this one writes all of them.
    """

    _selection: PictureSelection

    def on_test_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Forget the pictures of an earlier run."""
        super().on_test_start(trainer, pl_module)
        self._selection = PictureSelection()

    @property
    def note(self) -> str:
        """Which images the pictures show."""
        if self.written == self._selection.seen:
            return super().note
        return f"{self.written} of {self._selection.seen} images: the worst, and a sample"

    def _is_wanted(self, item: ImageItem, place: Path, trainer: Trainer) -> bool:
        """Ask the selection about an image of a test; its picture may replace that of another image."""
        if trainer.state.fn != TrainerFn.TESTING or item.pred_score is None:
            return True
        label = None if item.gt_label is None else bool(item.gt_label)
        group = Group(getattr(item, "class_name", None), label)
        wanted, replaced = self._selection.offer(group, float(item.pred_score), place)
        if replaced is not None and replaced in self._taken:
            replaced.unlink(missing_ok=True)
            self._taken.remove(replaced)
        if not wanted:
            place.unlink(missing_ok=True)  # the picture of an earlier test
        return wanted


def _predicted_folder(trainer: Trainer, loader_number: int) -> Path | None:
    """Folder of the images that are predicted without a datamodule; ``None`` if there is one, or none is known."""
    if trainer.state.fn != TrainerFn.PREDICTING or getattr(trainer, "datamodule", None) is not None:
        return None
    loaders: Any = trainer.predict_dataloaders
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    loader = loaders[loader_number] if isinstance(loaders, Sequence) else loaders
    paths = getattr(getattr(loader, "dataset", None), "image_filenames", None)
    return common_folder([Path(path) for path in paths]) if paths else None

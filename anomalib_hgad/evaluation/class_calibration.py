# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""One scale for the scores of all classes, for any anomalib model.

A model of many product classes scores each of them on its own scale: a normal image of one class may score higher than
an anomalous one of another, and no threshold is right for both.

Dimensions: B images, K classes, height x width pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from anomalib.data import Batch, InferenceBatch
from lightning.pytorch import LightningModule, Trainer

from anomalib_hgad.common.processes import gather_objects
from anomalib_hgad.data.batch import ClassImageBatch
from anomalib_hgad.evaluation.class_inference import ClassInference
from anomalib_hgad.evaluation.class_scale import ClassScale, scale_of_pixels, scale_of_scores
from anomalib_hgad.evaluation.post_processing import RawScores
from anomalib_hgad.evaluation.threshold import ModelOfClassThresholds, NormalPostProcessor
from anomalib_hgad.evaluation.values import class_names_of

ONLY_CLASS = ""
"""Class name of images without a class."""


class MultiClassCalibration(NormalPostProcessor):
    """Calibrates the scores and maps of all classes to one scale, so that one threshold fits all classes.

    It works with every anomalib model except :class:`~anomalib_hgad.Hgad`, which calibrates itself. A score S of class
    y becomes (S - location of y) / spread of y, and so does every pixel of a map, with separate constants. They come
    from the normal validation images only: median and deviation of the image scores, mean and deviation of the pixels.
    The spreads of classes with few images are shrunk towards that of the others. The order of the scores within a class
    does not change, nor does its AUROC. The threshold is that of :class:`~anomalib_hgad.NormalPostProcessor`, on the
    calibrated scores.

    The class of an image is read from the batch, as in batches of :class:`~anomalib_hgad.MultiClass`. With a
    ``classifier`` it is inferred in tests and predictions, as on a production line, where it is not given. Images of no
    class, or of a class without normal validation images, use the scale of all images together.

    Validate on normal images that were not trained on (``val_split_mode: from_train``). The constants are saved in the
    checkpoint; to load it, give ``load_from_checkpoint`` this post-processor and the classifier again. A model of
    several classes cannot be exported with it: an exported graph gets no class and infers none.

    Args:
        classifier: Checkpoint of an :class:`~anomalib_hgad.Hgad` fitted on the same classes, which infers the class of
            an image.
            Defaults to ``None``: the class is read from the batches.
        false_positive_rate: Fraction of normal images that may be predicted anomalous.
            Defaults to ``0.05``.
        **kwargs: Arguments of :class:`anomalib.post_processing.PostProcessor`.

    Raises:
        TypeError: Before the first image, if the model calibrates its classes itself.
        ValueError: If no validation image is normal; if there are several classes and images without one; if a model
            of several classes is exported.

    Attributes:
        class_names: Names of the classes of the last validation, sorted.

    Example:
        >>> from anomalib.models import Padim
        >>> from anomalib_hgad import ClassEvaluator, MultiClassCalibration
        >>> model = Padim(post_processor=MultiClassCalibration(), evaluator=ClassEvaluator())  # doctest: +SKIP
    """

    _class_scale: torch.Tensor

    def __init__(
        self,
        classifier: str | Path | None = None,
        false_positive_rate: float = 0.05,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(false_positive_rate, each_class=False, **kwargs)
        self.class_names: list[str] = []
        self._inference = None if classifier is None else ClassInference(classifier)
        # Location and spread of image scores, then of pixels; neutral before the first validation.
        self.register_buffer("_class_scale", torch.tensor([[0.0], [1.0], [0.0], [1.0]]))
        self._rows: list[torch.Tensor] = []
        self._row_names: list[str | None] = []

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "class_names")

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Take the settings of a checkpoint, whose constants are read next.

        Args:
            config: Settings that :meth:`checkpoint_config` returned.
        """
        super().load_checkpoint_config(config)
        self._class_scale = self._class_scale.new_ones(4, len(self.class_names) + 1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject a model that calibrates its classes itself, and add the classifier before the pre-processing.

        Args:
            trainer: The trainer.
            pl_module: The model.
            stage: Stage that the trainer starts.

        Raises:
            TypeError: If it is such a model.
        """
        super().setup(trainer, pl_module, stage)
        if isinstance(pl_module, ModelOfClassThresholds):
            msg = f"{type(pl_module).__name__} calibrates the scores of its classes itself. Expected "
            msg += "NormalPostProcessor, or no post_processor at all, got MultiClassCalibration."
            raise TypeError(msg)
        if self._inference is not None:
            self._inference.load()
            # A new list: Lightning iterates over the current one.
            lightning = cast("Any", trainer)  # Lightning does not declare the list
            others = [callback for callback in lightning.callbacks if callback is not self._inference]
            lightning.callbacks = [self._inference, *others]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Batch,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Keep a few numbers of every image of the validation.

        Args:
            trainer: The trainer.
            pl_module: The model.
            outputs: Batch with predictions, labels and classes.
            *args: Unused.
            **kwargs: Unused.
        """
        del trainer, pl_module, args, kwargs
        score = outputs.pred_score.detach().double().flatten()
        of_pixels = score.new_full((4, len(score)), torch.nan)
        if outputs.anomaly_map is not None:
            pixels = outputs.anomaly_map.detach().double().flatten(1)
            of_pixels = torch.stack((pixels.amin(1), pixels.amax(1), pixels.mean(1), pixels.square().mean(1)))
        self._rows.append(torch.stack((score, outputs.gt_label.to(score), *of_pixels), dim=1).cpu())
        self._row_names.extend(class_names_of(outputs) or [ONLY_CLASS] * len(score))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the constants of the classes, and then thresholds and scale of the calibrated scores.

        Args:
            trainer: The trainer.
            pl_module: The model.

        Raises:
            ValueError: If no image of the validation is normal.
        """
        rows, names = torch.cat(self._rows), self._row_names
        self._rows, self._row_names = [], []
        gathered = gather_objects((rows, names))
        self._set_scale(torch.cat([part for part, _ in gathered]), [name for _, part in gathered for name in part])
        score, label, lowest, highest = rows[:, :4].unbind(1)
        index = self._index(names)
        image, pixel = self._scales(self._class_scale.double().cpu())
        # Thresholds and scales depend only on the smallest and the largest pixel of a map.
        ends = torch.stack((lowest, highest), dim=1)
        calibrated = SimpleNamespace(
            pred_score=_on_scale(score, image, index).to(self._class_scale),
            anomaly_map=None if ends.isnan().any() else _on_scale(ends, pixel, index).to(self._class_scale),
            gt_label=label.bool().to(self._class_scale.device),
        )
        super().on_validation_batch_end(trainer, pl_module, calibrated)
        super().on_validation_epoch_end(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Batch,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Calibrate and post-process a batch.

        Args:
            trainer: The trainer.
            pl_module: The model.
            outputs: Batch with predictions.
            *args: As in anomalib.
            **kwargs: As in anomalib.
        """
        self.calibrate(outputs)
        # Metrics of the order of the scores use the calibrated ones, before they are clipped.
        for callback in cast("Any", trainer).callbacks:
            if isinstance(callback, RawScores):
                callback.keep(outputs)
        super().on_test_batch_end(trainer, pl_module, outputs, *args, **kwargs)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Batch,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Calibrate and post-process a batch, as in a test."""
        self.calibrate(outputs)
        super().on_predict_batch_end(trainer, pl_module, outputs, *args, **kwargs)

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Post-process predictions without classes, as an exported graph does.

        Args:
            predictions: Predictions of a model of one class.

        Returns:
            The same, calibrated and post-processed.

        Raises:
            ValueError: If there are several classes.
        """
        if len(self.class_names) > 1:
            msg = f"MultiClassCalibration has scales of {len(self.class_names)} classes, but an exported graph gets "
            msg += "no class to choose one by. Export the model with post_processor=NormalPostProcessor(), or "
            msg += "export Hgad, which infers the class."
            raise ValueError(msg)
        index = torch.zeros(1, dtype=torch.int64, device=self._class_scale.device)
        return super().forward(predictions._replace(**self._calibrated(predictions, index)))

    def calibrate(self, batch: Batch) -> None:
        """Put scores and maps of a batch on the scale of all classes; they do not change before the first validation.

        Args:
            batch: Batch with predictions.

        Raises:
            ValueError: If there are several classes and the images have none, or if the classifier lacks a class.
        """
        names: Sequence[str | None] | None
        names = self._inference.names if self._inference is not None else class_names_of(batch)
        if names is None:
            if len(self.class_names) > 1:
                msg = f"MultiClassCalibration has scales of {len(self.class_names)} classes, but these images have no "
                msg += "class. Load them with MultiClass, or set classifier, a checkpoint of Hgad fitted on the "
                msg += "same classes."
                raise ValueError(msg)
            names = self.class_names or [ONLY_CLASS]
        elif self._inference is not None:
            self._check_inferable(self._inference.class_names)
        for field, values in self._calibrated(batch, self._index(names).to(self._class_scale.device)).items():
            setattr(batch, field, values)
        if isinstance(batch, ClassImageBatch) and self.class_names:
            known = [name if name in self.class_names else "" for name in names]
            batch.update(scored_class_name=known if len(known) == batch.batch_size else known * batch.batch_size)

    def _check_inferable(self, names: Sequence[str]) -> None:
        """Check that a classifier knows all classes that have a scale."""
        if missing := [name for name in self.class_names if name not in names]:
            msg = f"The classifier knows {', '.join(names)}, but not {', '.join(missing)} of the calibration. "
            msg += "Expected one that was fitted on the same classes: fit Hgad on them, or add them to it."
            raise ValueError(msg)

    def _set_scale(self, rows: torch.Tensor, names: Sequence[str | None]) -> None:
        """Set the constants from the rows of all processes, shape (images, 6)."""
        is_normal = rows[:, 1] == 0
        normal = rows[is_normal]
        owners = [name for name, normal_too in zip(names, is_normal.tolist(), strict=True) if normal_too]
        if not owners:
            msg = "A calibration of classes needs normal validation images, and there are none. Set "
            msg += "data.val_split_mode=from_train to use some of the training images."
            raise ValueError(msg)
        self.class_names = sorted({owner for owner in owners if owner is not None})
        of_classes = [normal[torch.tensor([owner == name for owner in owners])] for name in self.class_names]
        image = scale_of_scores([of_class[:, 0] for of_class in of_classes], normal[:, 0])
        pixel = scale_of_pixels([of_class[:, 4:] for of_class in of_classes], normal[:, 4:])
        self._class_scale = torch.stack((*image, *pixel)).to(self._class_scale)

    @staticmethod
    def _scales(constants: torch.Tensor) -> tuple[ClassScale, ClassScale]:
        """Return the constants of image scores and of pixels."""
        return ClassScale(*constants[:2]), ClassScale(*constants[2:])

    def _index(self, names: Sequence[str | None]) -> torch.Tensor:
        """Return the column of the constants for each image, int64, shape (B,): the last one for no class."""
        columns: dict[str | None, int] = {name: column for column, name in enumerate(self.class_names)}
        return torch.tensor([columns.get(name, len(columns)) for name in names])

    def _calibrated(self, batch: Batch | InferenceBatch, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the calibrated scores and maps of a batch, as far as it has them."""
        scales = zip(("pred_score", "anomaly_map"), self._scales(self._class_scale), strict=True)
        return {
            field: _on_scale(values, scale, index)
            for field, scale in scales
            if (values := getattr(batch, field)) is not None
        }


def _on_scale(values: torch.Tensor, scale: ClassScale, index: torch.Tensor) -> torch.Tensor:
    """Put scores or maps, shape (B, ...), on the scales of their classes."""
    location, spread = (constant[index].view(-1, *[1] * (values.ndim - 1)) for constant in scale)
    return (values - location) / spread

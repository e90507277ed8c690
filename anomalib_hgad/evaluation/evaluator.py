# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics of every class and their mean over the classes, by anomalib's metrics.

Works with any anomalib model on :class:`~anomalib_hgad.MultiClass` or on a datamodule of one class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPRO, AUROC, AnomalibMetric, Evaluator, F1Score, MinMax
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from torch import distributed
from torch.nn import ModuleList
from torchmetrics import MeanMetric

from anomalib_hgad.common.processes import are_repeated, gather_objects
from anomalib_hgad.data.batch import NO_CLASS
from anomalib_hgad.data.class_names import datamodule_class_names
from anomalib_hgad.evaluation.predictions import Prediction, predictions_of_batch, write_predictions
from anomalib_hgad.evaluation.results import Results, results_table, write_results
from anomalib_hgad.evaluation.values import between_0_and_1, rows_of, scaled_down

RAW_FIELDS = frozenset(f"class_{source}_{field}" for source in ("given", "inferred") for field in ("score", "map"))
"""Fields that no post-processor has brought between 0 and 1."""


NEEDS_CLASS = frozenset({"class_index", "class_given_score", "class_given_map"})
"""Fields that say nothing of an image of none of the classes."""


class _ClassAccuracy(MeanMetric):
    def update(self, pred_class_index: torch.Tensor, class_index: torch.Tensor) -> None:
        super().update((pred_class_index == class_index).float())


class ClassAccuracy(AnomalibMetric, _ClassAccuracy):
    """Share of the images whose class was inferred right."""

    default_fields = ("pred_class_index", "class_index")


class _FalseAlarmRate(MeanMetric):
    def update(self, pred_label: torch.Tensor, gt_label: torch.Tensor) -> None:
        super().update(pred_label[~gt_label.bool()].float())


class FalseAlarmRate(AnomalibMetric, _FalseAlarmRate):
    """Share of the normal images that are found anomalous."""

    default_fields = ("pred_label", "gt_label")


def default_test_metrics() -> list[AnomalibMetric]:
    """AUROC and F1 of images and pixels, AUPRO, and AUROCs of the raw scores with the class given and inferred.

    Beside them the share of normal images that raise an alarm, and that of images whose class is inferred right.

    F1 of pixels is there twice: at the post-processor's threshold, and at the limits of the classes' masks.
    """
    return [
        AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
        F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
        FalseAlarmRate(strict=False),
        AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
        AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
        F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
        F1Score(fields=["limit_mask", "gt_mask"], prefix="normal_limit_pixel_", strict=False),
        ClassAccuracy(strict=False),
        *(
            AUROC(fields=[f"{source}_{field}", truth], prefix=f"{source}_{level}_", strict=False)
            for source in ("class_given", "class_inferred")
            for level, field, truth in (("image", "score", "gt_label"), ("pixel", "map", "gt_mask"))
        ),
    ]


def default_val_metrics() -> list[AnomalibMetric]:
    """AUROC of images and pixels."""
    return [
        AUROC(fields=["pred_score", "gt_label"], prefix="val_image_", strict=False),
        AUROC(fields=["anomaly_map", "gt_mask"], prefix="val_pixel_", strict=False),
    ]


def _never() -> bool:
    return False


class ClassMetric:
    """A metric on the images of one class.

    Args:
        metric: The metric to copy.
    """

    def __init__(self, metric: AnomalibMetric) -> None:
        self.fields = metric.fields
        self.needs_class = not NEEDS_CLASS.isdisjoint(metric.fields)
        self.metric = metric.clone()
        self.metric.reset()
        # All processes see all images, see ClassEvaluator._update: there is nothing to exchange in the end.
        self.metric.distributed_available_fn = _never
        self.truth_range = MinMax(fields=[metric.fields[-1]]).to(metric.device)
        self.truth_range.distributed_available_fn = _never

    def update(self, values: dict[str, torch.Tensor]) -> None:
        """Add the fields of a batch; a batch that lacks one of the metric's is left out."""
        if all(field in values for field in self.fields):
            batch = SimpleNamespace(**values)
            self.metric.update(batch)
            self.truth_range.update(batch)

    def compute(self) -> float | None:
        """The value; ``None`` if it is not defined.

        Against a ground truth of normal and anomalous it needs both, and the rate of false alarms normal images alone.
        """
        if not self.truth_range.update_called:
            return None
        lowest, highest = self.truth_range.compute()
        missing = lowest > 0 if isinstance(self.metric, FalseAlarmRate) else lowest == highest
        if self.fields[-1].startswith("gt_") and missing:
            return None
        return float(self.metric.compute())


class ClassEvaluator(Evaluator):
    """Evaluator of one model on many classes.

    Every metric is computed for each class, and for all images pooled. Logged are ``image_AUROC`` (the mean over the
    classes), ``image_AUROC_pooled`` and ``image_AUROC_CLASS``, and so on for the others. After the test a table goes to
    the terminal; ``results.csv`` and ``results.json`` go into the results folder, and ``predictions.csv`` with the
    decision on every image. A class without anomalous images or without masks has no value where none is defined; the
    means are over those that have one. An image of none of the classes counts for all images pooled alone, and there
    not for metrics that need a class. Of several processes all have the same values, over all images, each of which
    counts once.

    Args:
        val_metrics: Metrics of the validation. Defaults to ``None``, AUROC of images and pixels.
        test_metrics: Metrics of the test. Defaults to ``None``, AUROC and F1 of images and pixels, AUPRO, the shares of
            normal images that raise an alarm and of classes inferred right, and the AUROCs of the raw scores with the
            class given and with it inferred.
        compute_on_cpu: Keep what the metrics collect in main memory. Defaults to ``True``.

    Attributes:
        results: Metrics of the last test; ``None`` before one.
    """

    def __init__(
        self,
        val_metrics: AnomalibMetric | Sequence[AnomalibMetric] | None = None,
        test_metrics: AnomalibMetric | Sequence[AnomalibMetric] | None = None,
        compute_on_cpu: bool = True,
    ) -> None:
        super().__init__(
            default_val_metrics() if val_metrics is None else val_metrics,
            default_test_metrics() if test_metrics is None else test_metrics,
            compute_on_cpu,
        )
        self._by_class: dict[str, list[ClassMetric]] = {}
        self._pooled: list[ClassMetric] = []
        self._seen: Counter[int] = Counter()
        self._predictions: list[Prediction] = []
        self._raw: frozenset[str] = RAW_FIELDS
        self.results: Results | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the metrics of a validation."""
        self._start(trainer, pl_module, self.val_metrics)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the metrics of a test."""
        self._start(trainer, pl_module, self.test_metrics)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch of the validation."""
        del pl_module, outputs, batch_idx
        self._update(self.val_metrics, batch, [], trainer.val_dataloaders, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch of the test.

        anomalib's tiled ensemble gives whole images without a trainer, and then asks the metrics themselves.
        """
        del pl_module, outputs, batch_idx
        if trainer is None:
            self._update_metrics_alone(batch)
            return
        predictions = predictions_of_batch(batch)
        self._update(self.test_metrics, batch, predictions, trainer.test_dataloaders, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log the metrics of a validation."""
        del trainer, pl_module
        self._log(self.val_metrics)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log the metrics of a test, and keep them for :meth:`on_test_end`."""
        del trainer, pl_module
        self.results = self._log(self.test_metrics)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the metrics on the terminal, and write them to files."""
        if self.results is not None and trainer.is_global_zero:
            Console().print(results_table(self.results, title=type(pl_module).__name__))
            write_results(self.results, Path(trainer.default_root_dir))
            write_predictions(self._predictions, Path(trainer.default_root_dir))

    def _start(self, trainer: Trainer, pl_module: LightningModule, metrics: Sequence[AnomalibMetric]) -> None:
        self._seen.clear()
        self._predictions = []
        datamodule = getattr(trainer, "datamodule", None)
        names = datamodule_class_names(datamodule) if datamodule is not None else []
        self._by_class = {name: [ClassMetric(metric) for metric in metrics] for name in names}
        self._pooled = [ClassMetric(metric) for metric in metrics]
        post_processor = getattr(pl_module, "post_processor", None)
        normalized = post_processor is not None and getattr(post_processor, "enable_normalization", False)
        self._raw = RAW_FIELDS if normalized else RAW_FIELDS | {"pred_score", "anomaly_map"}

    def _update(
        self,
        metrics: Sequence[AnomalibMetric],
        batch: ImageBatch,
        predictions: Sequence[Prediction],
        loaders: Any,  # noqa: ANN401
        loader_index: int,
    ) -> None:
        values = self._values(metrics, batch)
        names = self._class_names(batch)
        if distributed.is_available() and distributed.is_initialized():
            loader = loaders[loader_index] if isinstance(loaders, Sequence) else loaders
            new = [not repeated for repeated in are_repeated(loader, self._seen[loader_index], len(names))]
            self._seen[loader_index] += len(names)
            own = {field: value.cpu()[torch.tensor(new)] for field, value in values.items()}
            # Batch by batch, and not the metrics in the end: a process may have no images of a class, and torchmetrics'
            # metrics wait for each other.
            own_names = [name for name, is_new in zip(names, new, strict=True) if is_new]
            own_predictions = [row for row, is_new in zip(predictions, new, strict=False) if is_new]
            for its_values, its_names, its_predictions in gather_objects((own, own_names, own_predictions)):
                on_device = {field: value.to(batch.image.device) for field, value in its_values.items()}
                self._add(metrics, on_device, its_names)
                self._predictions.extend(its_predictions)
        else:
            self._add(metrics, values, names)
            self._predictions.extend(predictions)

    def _values(self, metrics: Sequence[AnomalibMetric], batch: ImageBatch) -> dict[str, torch.Tensor]:
        """The fields of a batch that metrics need, as they take them."""
        fields = {field for metric in metrics for field in metric.fields}
        values = {field: value for field in fields if (value := getattr(batch, field, None)) is not None}
        values = {field: between_0_and_1(value) if field in self._raw else value for field, value in values.items()}
        return {field: scaled_down(value) for field, value in values.items()}

    def _update_metrics_alone(self, batch: ImageBatch) -> None:
        """Add a batch to the metrics themselves, without classes; those that it has no fields for are left out."""
        self._raw = RAW_FIELDS | {"pred_score", "anomaly_map"}
        values = self._values(self.test_metrics, batch)
        computable = [metric for metric in self.test_metrics if metric.strict or values.keys() >= {*metric.fields}]
        self.add_module("test_metrics", ModuleList(computable))
        for metric in computable:
            metric.update(SimpleNamespace(**values))

    def _class_names(self, batch: ImageBatch) -> Sequence[str | None]:
        """Class of every image; ``None`` for one of none of the classes."""
        names = getattr(batch, "class_name", None)
        if names is None:
            only = next(iter(self._by_class), "0") if len(self._by_class) <= 1 else None
            return [only] * batch.batch_size
        if (class_index := getattr(batch, "class_index", None)) is None:
            return list(names)
        return [None if index == NO_CLASS else name for name, index in zip(names, class_index.tolist(), strict=True)]

    def _add(
        self, metrics: Sequence[AnomalibMetric], values: dict[str, torch.Tensor], names: Sequence[str | None]
    ) -> None:
        """Add the values of some images and their classes."""
        if not names:
            return
        with_class = rows_of(values, [name is not None for name in names])
        for metric in self._pooled:
            metric.update(with_class if metric.needs_class else values)
        for name in dict.fromkeys(names):
            if name is None:
                continue
            of_class = rows_of(values, [other == name for other in names])
            for metric in self._by_class.setdefault(name, [ClassMetric(metric) for metric in metrics]):
                metric.update(of_class)

    def _log(self, metrics: Sequence[AnomalibMetric]) -> Results:
        names = [metric.name for metric in metrics]
        results = Results(
            classes={
                class_name: dict(zip(names, (metric.compute() for metric in class_metrics), strict=True))
                for class_name, class_metrics in self._by_class.items()
            },
            pooled=dict(zip(names, (metric.compute() for metric in self._pooled), strict=True)),
        )
        suffixes = {"": results.mean, "_pooled": results.pooled}
        suffixes |= {f"_{class_name}": values for class_name, values in results.classes.items()}
        for suffix, values in suffixes.items():
            for name, value in values.items():
                if value is not None:
                    self.log(name + suffix, value)
        return results

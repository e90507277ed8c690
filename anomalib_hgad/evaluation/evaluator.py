# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics of every class and their mean over the classes, by anomalib's metrics.

Works with any anomalib model on :class:`~anomalib_hgad.MultiClass` or on a datamodule of one class.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AnomalibMetric, Evaluator
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import distributed
from torch.nn import ModuleList

from anomalib_hgad.common.processes import are_repeated, gather_objects
from anomalib_hgad.common.progress import track_within
from anomalib_hgad.data.class_names import datamodule_class_names
from anomalib_hgad.evaluation.class_metric import (
    POST_PROCESSED,
    check_metric_names,
    needs_threshold,
    sources_of,
    values_of,
)
from anomalib_hgad.evaluation.default_metrics import RETURNED, default_test_metrics, default_val_metrics
from anomalib_hgad.evaluation.identity import identity
from anomalib_hgad.evaluation.logged_names import warn_of_shared_names
from anomalib_hgad.evaluation.metrics_by_class import MetricsByClass
from anomalib_hgad.evaluation.pixel_counts import with_pixel_counts
from anomalib_hgad.evaluation.post_processing import (
    LABELS,
    RawScores,
    is_normalized,
    remove_labels_without_meaning,
)
from anomalib_hgad.evaluation.predictions import Prediction, predictions_of_batch, write_predictions
from anomalib_hgad.evaluation.results import Results, write_results
from anomalib_hgad.evaluation.terminal import show_test
from anomalib_hgad.evaluation.values import class_names_of


class ClassEvaluator(Evaluator):
    """Evaluator of one model on many classes.

    Every metric is computed for each class, and for all images pooled. Metrics that depend only on the order of the
    scores, such as AUROC and AUPRO, use raw scores.

    A test returns the means over the classes, such as ``image_AUROC``, and nan for a metric that is not defined. Of the
    default metrics it returns those that anomalib's own models return. Loggers and the trainer's ``callback_metrics``
    get all metrics and, with several classes, ``image_AUROC_pooled`` and ``image_AUROC_CLASS``. After the test a table
    is printed, and ``results.csv``, ``results.json`` and ``predictions.csv``, with the decision on every image, are
    written to the results folder.

    A class without anomalous images or without masks has no value for metrics that need them; means are over the
    classes with a value. If no class has a value, a test returns that of all images pooled. An image of no class counts
    only for all images pooled, and not for metrics that need a class. All processes of a distributed run have the same
    values, over all images, each of which counts once.

    Args:
        val_metrics: Metrics of the validation. Defaults to ``None``, AUROC of images and pixels.
        test_metrics: Metrics of the test. Defaults to ``None``, AUROC and F1 of images and pixels, AUPRO, the
            false-alarm rate, the accuracy of the inferred class, and the AUROCs of the raw scores with the given and
            with the inferred class.
        compute_on_cpu: Keep the states of the metrics in main memory. Defaults to ``True``.

    Raises:
        ValueError: If two metrics have the same name; before a training, if a validation metric needs a threshold,
            which is chosen at the end of the validation.

    Attributes:
        results: Metrics of the last test; ``None`` before the first.
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
        check_metric_names(self.val_metrics)
        check_metric_names(self.test_metrics)
        self._metrics = MetricsByClass()
        self._others: dict[str, float] = {}
        self._seen: Counter[int] = Counter()
        self._to_be_shown = False
        self._predictions: list[Prediction] = []
        self._raw_scores = RawScores()
        self._returned = RETURNED if test_metrics is None else frozenset(metric.name for metric in self.test_metrics)
        self.results: Results | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject metrics that a validation cannot have, and add a callback for scores before the post-processing.

        Args:
            trainer: The trainer.
            pl_module: The model.
            stage: Stage that the trainer starts.

        Raises:
            ValueError: If a metric of the validation of a training needs a threshold.
        """
        super().setup(trainer, pl_module, stage)
        for metric in self.val_metrics:
            if stage == TrainerFn.FITTING and needs_threshold(metric):
                msg = f"val_metrics: {metric.name} of {' and '.join(metric.fields)} compares scores with a threshold, "
                msg += "which is chosen at the end of a validation. Expected a metric of the scores alone, such as "
                msg += "F1Max(fields=['pred_score', 'gt_label']), the largest F1 of all thresholds, or AUROC."
                raise ValueError(msg)
        warn_of_shared_names(trainer.loggers, self._names_of_classes(trainer))
        # A new list: Lightning iterates over the current one.
        lightning = cast("Any", trainer)  # Lightning does not declare the list
        others = [callback for callback in lightning.callbacks if not isinstance(callback, RawScores)]
        lightning.callbacks = [self._raw_scores, *others]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the metrics of a validation."""
        del pl_module
        self._start(trainer, self.val_metrics, normalized=False)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the metrics of a test."""
        self._start(trainer, self.test_metrics, is_normalized(getattr(pl_module, "post_processor", None)))

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
        self._update(batch, self._raw_scores.take(batch), [], trainer.val_dataloaders, dataloader_idx)

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

        anomalib's tiled ensemble passes complete images without a trainer, and then reads the metrics themselves.
        """
        del outputs, batch_idx
        if trainer is None:
            self._update_metrics_alone(batch)
            return
        raw = self._raw_scores.take(batch)
        own = [field for field in LABELS if raw[field] is not None]
        remove_labels_without_meaning(batch, getattr(pl_module, "post_processor", None), own)
        predictions = with_pixel_counts(predictions_of_batch(batch, raw["pred_score"]), batch)
        self._update(batch, raw, predictions, trainer.test_dataloaders, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log the metrics of a validation."""
        del pl_module
        results = self._metrics.compute()
        self._log(trainer, {name: value for name, value in self._figures(results).items() if value is not None})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log the metrics of a test, and keep them for :meth:`on_test_end`."""
        del pl_module
        self.results = self._metrics.compute(partial(track_within, trainer, description="Computing the metrics"))
        figures = self._figures(self.results)
        returned: dict[str, float] = {}
        for name, pooled in zip(self.results.pooled, self._metrics.pooled, strict=True):
            if name in self._returned and pooled.concerned:
                value = self.results.pooled[name] if figures[name] is None else figures[name]
                returned[name] = math.nan if value is None else value
        self._log(trainer, returned)
        self._others = {name: value for name, value in figures.items() if value is not None and name not in returned}
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self._others.items()})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the metrics to files, and give the loggers what a test does not return."""
        if self.results is not None and trainer.is_global_zero:
            # Lightning's own table of what a test returns has nothing that this one lacks.
            loop = trainer.test_loop
            self._to_be_shown, loop.verbose = loop.verbose, False
            write_results(self.results, Path(trainer.default_root_dir), identity(pl_module.state_dict()))
            write_predictions(self._predictions, Path(trainer.default_root_dir))
            for logger_of_run in trainer.loggers if self._others else []:
                logger_of_run.log_metrics(self._others, step=trainer.global_step)
                logger_of_run.save()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show the metrics on the terminal, below the progress of the test."""
        del stage
        if self._to_be_shown and self.results is not None:
            show_test(trainer, self.results, self._metrics.images, title=type(pl_module).__name__)
        self._to_be_shown = False

    def _start(self, trainer: Trainer, metrics: Sequence[AnomalibMetric], normalized: bool) -> None:
        self._seen.clear()
        self._predictions = []
        self._metrics = MetricsByClass(metrics, self._names_of_classes(trainer), normalized)

    @staticmethod
    def _names_of_classes(trainer: Trainer) -> Sequence[str]:
        datamodule = getattr(trainer, "datamodule", None)
        return datamodule_class_names(datamodule) if datamodule is not None else []

    def _update(
        self,
        batch: ImageBatch,
        raw: Mapping[str, torch.Tensor | None],
        predictions: Sequence[Prediction],
        loaders: Any,  # noqa: ANN401
        loader_index: int,
    ) -> None:
        values = values_of(batch, raw, self._metrics.sources)
        names = self._class_names(batch)
        if distributed.is_available() and distributed.is_initialized():
            loader = loaders[loader_index] if isinstance(loaders, Sequence) else loaders
            new = [not repeated for repeated in are_repeated(loader, self._seen[loader_index], len(names))]
            self._seen[loader_index] += len(names)
            own = {source: value.cpu()[torch.tensor(new)] for source, value in values.items()}
            # Batch by batch, instead of the metrics at the end: a process may have no images of a class, and
            # torchmetrics' metrics wait for each other.
            own_names = [name for name, is_new in zip(names, new, strict=True) if is_new]
            own_predictions = [row for row, is_new in zip(predictions, new, strict=False) if is_new]
            for its_values, its_names, its_predictions in gather_objects((own, own_names, own_predictions)):
                on_device = {source: value.to(batch.image.device) for source, value in its_values.items()}
                self._metrics.add(on_device, its_names)
                self._predictions.extend(its_predictions)
        else:
            self._metrics.add(values, names)
            self._predictions.extend(predictions)

    def _update_metrics_alone(self, batch: ImageBatch) -> None:
        """Add a batch to the metrics themselves, without classes; metrics whose fields it lacks are left out."""
        raw = {field: getattr(batch, field, None) for field in POST_PROCESSED}
        computable = []
        for metric in self.test_metrics:
            sources = sources_of(metric, normalized=False)
            values = {source.field: value for source, value in values_of(batch, raw, sources).items()}
            if metric.strict or len(values) == len(sources):
                fields: Any = SimpleNamespace(**values)
                metric.update(fields)
                computable.append(metric)
        self.add_module("test_metrics", ModuleList(computable))

    def _class_names(self, batch: ImageBatch) -> Sequence[str | None]:
        """Return the class of every image; ``None`` for an image of no class."""
        if (names := class_names_of(batch)) is not None:
            return names
        known = self._metrics.class_names
        only = next(iter(known), "0") if len(known) <= 1 else None
        return [only] * batch.batch_size

    @staticmethod
    def _figures(results: Results) -> dict[str, float | None]:
        """Return all figures by the names that they are logged under; with one class, each occurs once."""
        suffixes = {"": results.mean}
        if len(results.classes) != 1 or results.pooled != results.mean:
            suffixes |= {"_pooled": results.pooled}
        if len(results.classes) > 1:
            suffixes |= {f"_{class_name}": values for class_name, values in results.classes.items()}
        return {name + suffix: value for suffix, values in suffixes.items() for name, value in values.items()}

    def _log(self, trainer: Trainer, figures: Mapping[str, float]) -> None:
        if trainer.barebones:
            # Lightning logs nothing then; anomalib's engine looks here.
            tensors = {name: torch.tensor(value) for name, value in figures.items()}
            trainer.callback_metrics.update(tensors)
            trainer.logged_metrics.update(tensors)
            return
        for name, value in figures.items():
            self.log(name, value)

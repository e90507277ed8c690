# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Contents of the report page of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from sklearn.metrics import roc_auc_score

from anomalib_hgad.data.reserved_names import MEAN, POOLED
from anomalib_hgad.models.hgad.criterion import kept_state
from anomalib_hgad.report import figures
from anomalib_hgad.report.comparison import compare_runs
from anomalib_hgad.report.defect_kinds import kind_tables
from anomalib_hgad.report.drift import Drift
from anomalib_hgad.report.examples import example, file_name, worst
from anomalib_hgad.report.latents import Sample, project, sample_latents
from anomalib_hgad.report.precision_recall import precision_and_recall
from anomalib_hgad.report.run_files import RunFiles
from anomalib_hgad.report.templates import page_template, time_of_page
from anomalib_hgad.report.thresholds import threshold_rows
from anomalib_hgad.report.unknown_products import (
    MOST_LISTED,
    called_unknown,
    product_novelties,
    products_with_novelty,
)

COLUMNS = {
    "image_AUROC": "image AUROC",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AUPRO": "AUPRO",
    "ClassAccuracy": "class right",
}
"""Threshold-free metrics in the table of the classes, and their headings."""

COMPARED_COLUMNS = {
    "image_AUROC": "image AUROC",
    "image_F1Score": "image F1",
    "FalseAlarmRate": "false alarms",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AUPRO": "AUPRO",
    "pixel_F1Score": "pixel F1",
    "ClassAccuracy": "class right",
}
"""Metrics compared between runs, and their headings."""


def render(run: RunFiles, others: Sequence[RunFiles] = (), drift: Drift | None = None) -> str:
    """Make the page.

    Args:
        run: The run.
        others: Runs to compare it with.
        drift: Drift of its products measured by a monitor. Defaults to ``None``, not known.

    Returns:
        HTML.
    """
    return page_template("page.html").render(
        title=" / ".join(run.folder.resolve().parts[-2:]),  # dataset and version
        made=time_of_page(),
        run=run,
        drift=drift,
        settings=settings_of(run),
        **_tables(run),
        **_pictures(run),
        **_inside(run, others),
        **_side_by_side([run, *others]),
    )


def _tables(run: RunFiles) -> dict[str, Any]:
    """Numbers of images, metrics and thresholds of the classes."""
    normal = [row for row in run.predictions if not row.gt_label]
    anomalous = [row for row in run.predictions if row.gt_label]
    at_threshold = precision_and_recall(run)
    with_pixels = any("pixel" in levels for levels in at_threshold.values())
    has_pixel_f1 = run.results["pooled"].get("pixel_F1Score") is not None
    thresholds = threshold_rows(run)
    return {
        "rows": run.results["classes"] | {name: run.results[name] for name in (MEAN, POOLED)},
        "columns": _defined(COLUMNS, [run]),
        "normal_count": len(normal),
        "anomalous_count": len(anomalous),
        "false_alarms": sum(row.raises_alarm for row in normal),
        "misses": sum(row.pred_label is False and not row.called_unknown for row in anomalous),
        "called_unknown": sum(row.called_unknown for row in run.predictions),
        "at_threshold": at_threshold,
        "with_pixels": with_pixels,
        "pixel_columns": 3 if with_pixels else int(has_pixel_f1),
        "thresholds": thresholds,
        "own_thresholds": any(row.threshold != row.common for row in thresholds),
        "validation_images": sum(row.images for row in thresholds),
        "novelties": product_novelties(run),
        "unknown": {file_name(run, row): row for row in called_unknown(run)[:MOST_LISTED]},
        "kinds": kind_tables(run),
    }


def _pictures(run: RunFiles) -> dict[str, Any]:
    """Figures of the scores, and the images with the largest errors."""
    products = products_with_novelty(run)
    return {
        "histograms": score_histograms(run),
        "roc": figures.roc_curves(run.groups),
        "confusion": confusion_figure(run),
        "novelty_figure": figures.novelty_of_products(products, run.class_names) if products else None,
        "missed": [example(run, row) for row in worst(run.predictions, anomalous=True)],
        "alarmed": [example(run, row) for row in worst(run.predictions, anomalous=False)],
    }


def _inside(run: RunFiles, others: Sequence[RunFiles]) -> dict[str, Any]:
    """Figures of the latents, the log-likelihoods and the training."""
    sample, course = sample_latents(run), run.model.training_course
    samples = [sample, *map(sample_latents, others)]
    names = [f"run {number}" for number in range(1, len(samples) + 1)] if others else ["this run"]
    return {
        "likelihoods": likelihood_histograms(dict(zip(names, samples, strict=True))),
        "latents": latent_figure(run, sample),
        "course": figures.training_course(course) if len(course) > 1 else None,
        "kept": kept_state(course) if len(course) > 1 else None,
    }


def _side_by_side(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """Differences between runs; nothing for a single one."""
    columns = _defined(COMPARED_COLUMNS, runs)
    compared = compare_runs(runs, list(columns), [settings_of(run) for run in runs]) if len(runs) > 1 else None
    return {"comparison": compared, "compared_columns": columns}


def _defined(columns: Mapping[str, str], runs: Sequence[RunFiles]) -> dict[str, str]:
    """Columns of which a run has a value."""
    pooled = [run.results["pooled"] for run in runs]
    return {key: name for key, name in columns.items() if any(metrics.get(key) is not None for metrics in pooled)}


def score_histograms(run: RunFiles) -> Markup:
    """Image scores of every class, and of all images."""
    panels = {}
    for name, rows in run.groups.items():
        normal = np.array([figures.score(row) for row in rows if not row.gt_label])
        anomalous = np.array([figures.score(row) for row in rows if row.gt_label])
        panels[name] = (normal, anomalous)
    return figures.histograms(panels, "image score, before post-processing", run.threshold)


def likelihood_histograms(samples: dict[str, Sample]) -> Markup | None:
    """Log-likelihoods of normal and anomalous positions; ``None`` where no masks tell them apart."""
    panels = {}
    for name, sample in samples.items():
        if len(sample.normal) and len(sample.anomalous):
            truth = np.repeat([1, 0], [len(sample.normal), len(sample.anomalous)])
            auroc = roc_auc_score(truth, np.concatenate([sample.normal, sample.anomalous]))
            prior = f"{name}: AUROC of positions {100 * auroc:.1f} %"
            panels[prior] = (sample.normal, sample.anomalous)
    if not panels:
        return None
    return figures.histograms(panels, "log-likelihood of a position, nats per dimension", None, most_columns=2)


def latent_figure(run: RunFiles, sample: Sample) -> Markup:
    """Latent space of the finest level, with the main centres of the classes."""
    positions, centers = project(sample)
    return figures.latent_space(positions, sample.predictions, centers, run.class_names)


def confusion_figure(run: RunFiles) -> Markup | None:
    """Confusion of the inferred classes; ``None`` if there is only one class, or none was inferred."""
    if len(run.class_names) == 1 or not any(row.pred_class_name for row in run.predictions):
        return None
    return figures.confusion(run.predictions, run.class_names)


def settings_of(run: RunFiles) -> dict[str, Any]:
    """Settings of a model and its thresholds, without file paths, which are specific to one machine."""
    hidden = {"backbone_weights", "feature_cache", "pre_trained", "seed"}  # loading a checkpoint sets three of them
    shown: dict[str, Any] = {}
    for name, value in run.model.hparams.items():
        if isinstance(value, dict):
            shown |= {f"{name}.{key}": part for key, part in value.items()}
        elif name not in hidden:
            shown[name] = value
    if thresholds := threshold_rows(run):
        shown["NormalPostProcessor.false_positive_rate"] = f"{thresholds[0].rate:.3g}"
        shown["NormalPostProcessor.each_class"] = any(row.threshold != row.common for row in thresholds)
    return shown

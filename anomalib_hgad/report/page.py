# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What is on the page of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup
from sklearn.metrics import roc_auc_score

from anomalib_hgad.models.hgad.criterion import kept_state
from anomalib_hgad.report import figures
from anomalib_hgad.report.defect_kinds import kind_tables
from anomalib_hgad.report.examples import example, worst
from anomalib_hgad.report.latents import Sample, project, sample_latents
from anomalib_hgad.report.run_files import RunFiles
from anomalib_hgad.report.templates import page_template, time_of_page
from anomalib_hgad.report.thresholds import threshold_rows

COLUMNS = {
    "image_AUROC": "image AUROC",
    "image_F1Score": "image F1",
    "FalseAlarmRate": "false alarms",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AUPRO": "AUPRO",
    "pixel_F1Score": "pixel F1",
    "ClassAccuracy": "class right",
}
"""Metrics in the table, and their headings."""


def render(run: RunFiles, other: RunFiles | None) -> str:
    """Make the page.

    Args:
        run: The run.
        other: One to compare it with.

    Returns:
        HTML.
    """
    sample, course = sample_latents(run), run.model.training_course
    normal = [row for row in run.predictions if not row.gt_label]
    anomalous = [row for row in run.predictions if row.gt_label]
    return page_template("page.html").render(
        title=" / ".join(run.folder.resolve().parts[-2:]),  # dataset and version
        made=time_of_page(),
        run=run,
        columns={key: name for key, name in COLUMNS.items() if run.results["pooled"].get(key) is not None},
        normal_count=len(normal),
        anomalous_count=len(anomalous),
        false_alarms=sum(bool(row.pred_label) and not row.called_unknown for row in normal),
        misses=sum(row.pred_label is False and not row.called_unknown for row in anomalous),
        called_unknown=sum(row.called_unknown for row in run.predictions),
        thresholds=(thresholds := threshold_rows(run)),
        own_thresholds=any(row.threshold != row.common for row in thresholds),
        validation_images=sum(row.images for row in thresholds),
        histograms=score_histograms(run),
        roc=figures.roc_curves(run.groups),
        likelihoods=likelihood_histograms(
            {"this run": sample} | ({"compared": sample_latents(other)} if other else {})
        ),
        compared=None if other is None else other.folder,
        latents=latent_figure(run, sample),
        confusion=confusion_figure(run),
        course=figures.training_course(course) if len(course) > 1 else None,
        kept=kept_state(course) if len(course) > 1 else None,
        missed=[example(run, row) for row in worst(run.predictions, anomalous=True)],
        kinds=kind_tables(run),
        alarmed=[example(run, row) for row in worst(run.predictions, anomalous=False)],
        settings=settings_of(run),
    )


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
    return figures.histograms(panels, "log-likelihood of a position, nats per dimension", None) if panels else None


def latent_figure(run: RunFiles, sample: Sample) -> Markup:
    """Latent space of the finest level, with the main centres of the classes."""
    positions, centers = project(sample)
    return figures.latent_space(positions, sample.predictions, centers, run.class_names)


def confusion_figure(run: RunFiles) -> Markup | None:
    """Confusion of the inferred classes; ``None`` if there is one class alone, or none was inferred."""
    if len(run.class_names) == 1 or not any(row.pred_class_name for row in run.predictions):
        return None
    return figures.confusion(run.predictions, run.class_names)


def settings_of(run: RunFiles) -> dict[str, Any]:
    """Settings of the model that the report shows; without the places of files, which are those of one machine."""
    hidden = {"backbone_weights", "feature_cache", "pre_trained", "seed"}  # loading a checkpoint sets three of them
    shown: dict[str, Any] = {}
    for name, value in run.model.hparams.items():
        if isinstance(value, dict):
            shown |= {f"{name}.{key}": part for key, part in value.items()}
        elif name not in hidden:
            shown[name] = value
    return shown

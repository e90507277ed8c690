# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Writes the predictions of the torch model into the fields of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch

from anomalib_hgad.data.batch import NO_CLASS, ClassImageBatch
from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.models.hgad.defect_kinds import KnownDefects, named_kinds
from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT
from anomalib_hgad.models.hgad.torch_model import HgadModel, HgadPrediction, LevelReading

ScoredClass = Literal["inferred", "given"]
"""Class that an image is scored under."""


def predict_batch(
    model: HgadModel,
    batch: ClassImageBatch,
    class_index: torch.Tensor | None,
    class_names: Sequence[str],
    class_source: ScoredClass,
    pixel_limit: float | None,
    known_defects: Mapping[str, KnownDefects],
) -> None:
    """Predict a batch with the inferred class and, where it is known, with the given one.

    Args:
        model: The model.
        batch: Batch of normalised images on the model's device; its prediction fields are set.
        class_index: True classes, int64, shape (B,), or ``None``.
        class_names: Names of the classes, unused if the mixture has another number of classes.
        class_source: Which of the two predictions decides; it is the inferred one where the class is not known.
        pixel_limit: Pixels above it are marked; ``None`` marks none, as the maps have no common scale.
        known_defects: Known defects by class name. Each image gets the kind that its defect would have if it had one.
    """
    images = cast("torch.Tensor", batch.image)
    readings = model.read(model.encoder(images))
    inferred, given = _predictions(model, readings, images.shape[-2:], class_index)
    pred_class_index = scored = inferred.class_posterior.argmax(dim=-1)
    chosen = inferred
    if class_index is not None and given is not None and class_source == "given":
        chosen = given
        scored = torch.where(class_index == NO_CLASS, pred_class_index, model.mixture_class_index(class_index))
    batch.update(pred_score=chosen.pred_score, raw_score=chosen.pred_score, anomaly_map=chosen.anomaly_map)
    batch.update(class_inferred_score=inferred.pred_score, class_inferred_map=inferred.anomaly_map.squeeze(1))
    batch.update(novelty=inferred.novelty, scored_class_index=scored)
    if pixel_limit is not None:
        batch.update(limit_mask=chosen.anomaly_map.squeeze(1) > pixel_limit)
    if given is not None:
        batch.update(class_given_score=given.pred_score, class_given_map=given.anomaly_map.squeeze(1))
    if model.num_classes == len(class_names):
        names = [
            UNKNOWN if novelty > NOVELTY_LIMIT else class_names[index]
            for index, novelty in zip(pred_class_index.tolist(), inferred.novelty.tolist(), strict=True)
        ]
        batch.update(pred_class_index=pred_class_index, pred_class_name=names)
        scored_names = [class_names[index] for index in scored.tolist()]
        batch.update(scored_class_name=scored_names)
        if known_defects:
            latents = [reading.latents for reading in readings]
            kinds = named_kinds(model, latents, chosen.anomaly_map, scored, scored_names, known_defects)
            batch.update(defect_kind=kinds)


def _predictions(
    model: HgadModel, readings: Sequence[LevelReading], size: Sequence[int], class_index: torch.Tensor | None
) -> tuple[HgadPrediction, HgadPrediction | None]:
    """Predict with the inferred and with the given class; the two are the same for an image without a class."""
    if class_index is None:
        return model.predict_readings(readings, size)
    inferred, given = model.predict_readings(readings, size, class_index.clamp(min=0))
    rows = (class_index == NO_CLASS).nonzero().squeeze(-1)
    if given is not None and len(rows):
        given = HgadPrediction(
            *(mine.index_copy(0, rows, other[rows]) for mine, other in zip(given, inferred, strict=True))
        )
    return inferred, given

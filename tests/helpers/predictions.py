# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Decisions about images, made up."""

from __future__ import annotations

from anomalib_hgad.evaluation.predictions import Prediction


def prediction(path: str, name: str, *, anomalous: bool, score: float) -> Prediction:
    """A decision about an image whose class is known and found; 0.5 is the threshold."""
    return Prediction(path, None, name, name, anomalous, score > 0.5, score, score, 0.0)


def predicted(name: str, novelty: float, *, anomalous: bool = False) -> Prediction:
    """A decision about an image of a line, whose class is not known but inferred."""
    score = 0.5 + (0.1 if anomalous else -0.1)
    return Prediction("1.png", None, None, name, None, anomalous, score, score, novelty)

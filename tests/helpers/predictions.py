# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Decisions about images, made up."""

from __future__ import annotations

from anomalib_hgad.evaluation.predictions import Prediction


def prediction(path: str, name: str, *, anomalous: bool, score: float) -> Prediction:
    """A decision about an image whose class is known and found; 0.5 is the threshold."""
    return Prediction(path, None, name, name, anomalous, score > 0.5, score, score, 0.0)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Outputs of a model for an image, independent of the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Outputs:
    """Outputs of a model for an image; ``None`` for missing ones.

    Attributes:
        pred_score: Its score.
        pred_label: Whether it is anomalous.
        anomaly_map: Its map, shape (height, width) of the model's images.
        pred_mask: Pixels that are marked, the same shape.
        class_name: Name of the inferred class, or ``"unknown"``.
    """

    TENSORS: ClassVar[tuple[str, ...]] = ("pred_score", "pred_label", "anomaly_map", "pred_mask")

    pred_score: float | None
    pred_label: bool | None
    anomaly_map: np.ndarray | None
    pred_mask: np.ndarray | None
    class_name: str | None

    @classmethod
    def of(cls, values: Mapping[str, np.ndarray | None], class_names: Sequence[str] | None = None) -> Outputs:
        """Make outputs from the tensors of a batch of one, whose shapes differ among models and runtimes.

        Args:
            values: Tensors by their names.
            class_names: Names of the inferred classes.
        """
        score, label, anomaly_map, mask = (values.get(name) for name in cls.TENSORS)
        return cls(
            None if score is None else float(score.item()),
            None if label is None else bool(label.item()),
            None if anomaly_map is None else _plane(anomaly_map),
            None if mask is None else _plane(mask).astype(bool),
            class_names[0] if class_names else None,
        )


def _plane(values: np.ndarray) -> np.ndarray:
    return values.reshape(values.shape[-2:])

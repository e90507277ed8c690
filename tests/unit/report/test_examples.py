# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the choice of images that are shown."""

from __future__ import annotations

from anomalib_hgad.report import examples
from tests.helpers.predictions import prediction


def test_worst_errors_leave_room_for_other_classes() -> None:
    rows = [prediction(f"a{index}", "a", anomalous=True, score=index / 100) for index in range(8)]
    rows += [prediction("b0", "b", anomalous=True, score=0.9), prediction("a9", "a", anomalous=False, score=0.0)]
    assert [row.image_path for row in examples.worst(rows, anomalous=True)] == ["a0", "a1", "a2", "b0"]
    assert [row.image_path for row in examples.worst(rows, anomalous=False)] == ["a9"]

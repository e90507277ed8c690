# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of what tells models apart."""

from __future__ import annotations

import pytest
import torch

from anomalib_hgad.evaluation.identity import identity

STATE = {
    "model.weight": torch.arange(6.0).reshape(2, 3),
    "model.half": torch.ones(3, dtype=torch.bfloat16),
    "model.counts": torch.tensor(5),
    "post_processor._image_threshold": torch.tensor(torch.nan),
    "evaluator.limit": torch.tensor(0.3),
}


def test_equal_states_are_one_model_whatever_their_order_and_metrics() -> None:
    other = {name: tensor.clone() for name, tensor in reversed(STATE.items())}
    assert identity(other | {"evaluator.limit": torch.tensor(0.05)}) == identity(STATE)
    assert len(identity(STATE)) == 16


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.weight", torch.arange(6.0).reshape(3, 2)),
        ("model.weight", torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0000005]])),
        ("model.half", torch.zeros(3, dtype=torch.bfloat16)),
        ("model.counts", torch.tensor(5.0)),
        ("post_processor._image_threshold", torch.tensor(0.5)),
        ("model.more", torch.tensor(5)),
    ],
)
def test_another_weight_or_threshold_is_another_model(name: str, value: torch.Tensor) -> None:
    assert identity(STATE | {name: value}) != identity(STATE)

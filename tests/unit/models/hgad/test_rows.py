# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Rows of constants that come and go."""

from __future__ import annotations

import torch
from torch import nn

from anomalib_hgad.models.hgad.rows import append_rows, keep_rows


def make_module() -> nn.Module:
    module = nn.Module()
    module.trained = nn.Parameter(torch.tensor([[1.0], [2.0]]))
    module.fixed = nn.Parameter(torch.tensor([5.0, 6.0]), requires_grad=False)
    module.register_buffer("constant", torch.tensor([7.0, 8.0], dtype=torch.float64))
    return module


def test_rows_come_last_in_the_type_that_is_there() -> None:
    module = make_module()
    append_rows(module, {"trained": torch.tensor([[3.0]]), "constant": torch.tensor([9.0])})
    assert module.trained.tolist() == [[1.0], [2.0], [3.0]]
    assert (module.constant.tolist(), module.constant.dtype) == ([7.0, 8.0, 9.0], torch.float64)
    assert module.fixed.tolist() == [5.0, 6.0]


def test_rows_are_kept_in_an_order() -> None:
    module = make_module()
    keep_rows(module, [1], "trained", "fixed")
    keep_rows(module, [1, 0], "constant")
    assert (module.trained.tolist(), module.fixed.tolist(), module.constant.tolist()) == ([[2.0]], [6.0], [8.0, 7.0])


def test_what_was_trained_is_still_and_all_is_in_the_state() -> None:
    module = make_module()
    append_rows(module, {"trained": torch.zeros(1, 1), "fixed": torch.zeros(1), "constant": torch.zeros(1)})
    assert {name: value.requires_grad for name, value in module.named_parameters()} == {"trained": True, "fixed": False}
    assert {name: len(value) for name, value in module.state_dict().items()} == {
        "trained": 3,
        "fixed": 3,
        "constant": 3,
    }


def test_rows_of_a_module_within() -> None:
    outer = nn.Module()
    outer.inner = make_module()
    append_rows(outer, {"inner.constant": torch.tensor([9.0])})
    keep_rows(outer, [2], "inner.constant")
    assert outer.inner.constant.tolist() == [9.0]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the states of a model; whole trainings are in tests/integration/test_closed_form_start.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from anomalib_hgad import Hgad
from anomalib_hgad.models.hgad.best_state import BestState, density_state, set_density_state
from tests.helpers.light import LIGHT


@pytest.fixture(scope="module")
def model() -> Hgad:
    return Hgad(**LIGHT | {"num_classes": 3, "covariance": "full", "seed": 0})


def test_state_is_all_of_flows_and_mixtures(model: Hgad) -> None:
    state = density_state(model.model)
    others = {name.partition(".")[0] for name in model.model.state_dict().keys() - state.keys()}
    assert others == {"encoder", "calibration", "novelty", "anomaly_map_generator"}
    assert {name.partition(".")[0] for name in state} == {"flows", "priors", "rivals"}


def test_state_is_set_into_the_same_parameters(model: Hgad) -> None:
    parameters, before = list(model.parameters()), density_state(model.model)
    with torch.no_grad():
        for tensor in (
            *model.model.flows.parameters(),
            *model.model.priors.parameters(),
            *model.model.priors.buffers(),
        ):
            tensor.add_(1)
    model.model.rivals.add_(1)
    assert not any(
        torch.equal(tensor, before[name]) for name, tensor in density_state(model.model).items() if "w_perm" in name
    )
    set_density_state(model.model, before)
    for name, tensor in density_state(model.model).items():
        assert torch.equal(tensor, before[name]), name
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))


def test_exception_leaves_the_best_state(model: Hgad) -> None:
    callback = BestState()
    callback._best = density_state(model.model)
    with torch.no_grad():
        model.model.flows[0].blocks.module_list[0].subnet[-1].bias.add_(1)
    callback.on_exception(SimpleNamespace(), model, KeyboardInterrupt())
    assert not model.model.flows[0].blocks.module_list[0].subnet[-1].bias.any()


def test_nothing_happens_with_the_identity() -> None:
    callback, plain = BestState(), Hgad(**LIGHT)
    callback.on_train_start(SimpleNamespace(), plain)
    checkpoint: dict = {"state_dict": {}}
    callback.on_save_checkpoint(SimpleNamespace(), plain, checkpoint)
    assert checkpoint == {"state_dict": {}}

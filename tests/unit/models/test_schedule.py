# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the course of a training against numbers by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from anomalib_hgad.models.schedule import (
    TrainingCourse,
    checked_training_arguments,
    limits_within_a_pass,
    make_optimizer,
    resume_with,
)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.1),
        (5, 0.55),
        (10, 1.0),
        (40, 0.001 + 0.999 * 0.75),  # a third of the cosine: (1 + cos 60 deg) / 2
        (55, 0.001 + 0.999 * 0.5),
        (70, 0.001 + 0.999 * 0.25),
        (100, 0.001),
        (150, 0.001),
    ],
)
def test_learning_rate_by_hand(step: int, factor: float) -> None:
    course = TrainingCourse(total_steps=100, warmup=0.1, first_stage=0)
    assert course.learning_rate_factor(step) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.08), (7, 0.3), (1, 0.08), (2, 0.5), (1000, 0.0), (10, 1.0)])
def test_learning_rate_rises_then_falls_between_a_thousandth_and_one(total: int, warmup: float) -> None:
    course = TrainingCourse(total, warmup, 0)
    factors = [course.learning_rate_factor(step) for step in range(total + 1)]
    top = next((step for step in range(total + 1) if step >= warmup * total), total)
    assert all(a < b for a, b in pairwise(factors[:top]))
    assert all(a > b for a, b in pairwise(factors[top:]))
    assert max(factors) <= 1
    assert min(factors) >= 0.001


def test_no_warmup_starts_at_the_full_rate_and_ends_at_a_thousandth() -> None:
    course = TrainingCourse(total_steps=50, warmup=0, first_stage=0)
    assert course.learning_rate_factor(0) == 1
    assert course.learning_rate_factor(50) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("first_stage", "stages"),
    [(0.0, [2, 2, 2, 2]), (0.25, [1, 2, 2, 2]), (0.3, [1, 1, 2, 2]), (1.0, [1, 1, 1, 1]), (0.01, [1, 2, 2, 2])],
)
def test_stages_by_hand(first_stage: float, stages: list[int]) -> None:
    course = TrainingCourse(total_steps=4, warmup=0, first_stage=first_stage)
    assert [course.stage(step) for step in range(4)] == stages


def test_paper_trains_the_second_stage_from_meta_epoch_two_of_twenty_five() -> None:
    course = TrainingCourse(total_steps=25 * 8 * 10, warmup=2 / 25, first_stage=2 / 25)
    assert (course.stage(159), course.stage(160)) == (1, 2)
    assert course.learning_rate_factor(160) == 1


def test_only_the_flows_decay() -> None:
    """With no gradient but the decay, Adam's first step moves a parameter by the learning rate, and others not."""
    flow, prior = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = make_optimizer([flow], [prior], lr=0.01, weight_decay=0.1)
    flow.grad, prior.grad = torch.zeros(3), torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(flow.detach(), torch.full((3,), 0.99))
    assert (prior == 1).all()


def test_optimizer_has_the_papers_settings_and_leaves_frozen_parameters_out() -> None:
    trained, prior = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = make_optimizer(iter([trained, frozen]), iter([frozen, prior]), lr=2e-4, weight_decay=1e-4)
    assert isinstance(optimizer, torch.optim.Adam)
    assert [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups] == [
        [id(trained)],
        [id(prior)],
    ]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 0.0]
    assert all(group["betas"] == (0.95, 0.99) and group["lr"] == 2e-4 for group in optimizer.param_groups)


def test_a_prior_without_trained_parameters_makes_no_group() -> None:
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = make_optimizer([nn.Parameter(torch.ones(3))], [frozen], lr=1.0, weight_decay=0.0)
    assert len(optimizer.param_groups) == 1


def test_scheduler_applies_the_factor_to_all_groups() -> None:
    optimizer = make_optimizer([nn.Parameter(torch.ones(1))], [nn.Parameter(torch.ones(1))], lr=0.2, weight_decay=0.0)
    scheduler = LambdaLR(optimizer, TrainingCourse(10, 0.2, 0).learning_rate_factor)
    rates = [scheduler.get_last_lr()]
    for _ in range(2):
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr())
    assert rates == [pytest.approx([0.2 * factor] * 2) for factor in (0.1, 0.55, 1.0)]


def optimizer_and_scheduler(lr: float, weight_decay: float) -> tuple[torch.optim.Adam, LambdaLR]:
    optimizer = make_optimizer([nn.Parameter(torch.ones(1))], [nn.Parameter(torch.ones(1))], lr, weight_decay)
    return optimizer, LambdaLR(optimizer, TrainingCourse(10, 0.2, 0).learning_rate_factor)


@pytest.mark.parametrize("lr", [0.2, 0.5])
@pytest.mark.parametrize("weight_decay", [0.1, 0.3])
def test_resumed_training_has_the_settings_of_the_model(
    lr: float, weight_decay: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Lightning restores the optimiser as it was, and with it the settings that the training began with."""
    began, its_scheduler = optimizer_and_scheduler(0.2, 0.1)
    for _ in range(2):
        began.step()
        its_scheduler.step()
    checkpoint = {"optimizer_states": [began.state_dict()], "lr_schedulers": [its_scheduler.state_dict()]}
    resume_with(checkpoint, lr, weight_decay)
    resumed, scheduler = optimizer_and_scheduler(lr, weight_decay)
    resumed.load_state_dict(checkpoint["optimizer_states"][0])
    scheduler.load_state_dict(checkpoint["lr_schedulers"][0])
    assert [group["weight_decay"] for group in resumed.param_groups] == [weight_decay, 0.0]
    assert [group["lr"] for group in resumed.param_groups] == pytest.approx([lr] * 2)
    resumed.step()
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([lr * TrainingCourse(10, 0.2, 0).learning_rate_factor(3)] * 2)
    assert ("other settings than it began with: " in caplog.text) == ((lr, weight_decay) != (0.2, 0.1))
    assert (f"lr={lr}, not 0.2" in caplog.text) == (lr != 0.2)


PAPERS = {"weight_decay": 1e-4, "warmup": 2 / 25, "first_stage": 2 / 25, "label_smoothing": 0.02}


@pytest.mark.parametrize("given", [None, {}, {"warmup": 0}, {"weight_decay": 3.0, "first_stage": 0.5}])
def test_settings_that_are_not_given_are_the_papers(given: dict[str, float] | None) -> None:
    settings = checked_training_arguments(given)
    assert settings == PAPERS | (given or {})
    settings["warmup"] = 0.9
    assert checked_training_arguments({}) == PAPERS, "and stay so"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": 1.0}, "there is no setting lr. Expected some of weight_decay, warmup, first_stage, label_smoothing"),
        ({"weight_decay": -1e-4}, "expected 0 <= weight_decay < inf, got -0.0001"),
        ({"weight_decay": float("inf")}, "expected 0 <= weight_decay < inf, got inf"),
        ({"warmup": 1.0}, "expected 0 <= warmup < 1, got 1.0"),
        ({"first_stage": -0.1}, "expected 0 <= first_stage < 1, got -0.1"),
        ({"label_smoothing": float("nan")}, "expected 0 <= label_smoothing < 1, got nan"),
    ],
)
def test_settings_of_a_training_that_make_no_sense(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_training_arguments(given)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, []),
        ({"limit_train_batches": 1.0, "max_epochs": 3}, []),
        ({"limit_train_batches": 1}, ["trainer.limit_train_batches=1"]),
        ({"limit_train_batches": 0.5, "max_steps": 7}, ["trainer.limit_train_batches=0.5", "trainer.max_steps=7"]),
        ({"overfit_batches": 2}, ["trainer.overfit_batches=2"]),
        ({"max_time": "00:00:01:00"}, ["trainer.max_time"]),
        ({"fast_dev_run": True}, ["trainer.fast_dev_run"]),
    ],
    ids=["none", "all", "one batch", "two", "overfit", "time", "dev"],
)
def test_settings_that_end_a_training_within_a_pass(settings: dict[str, Any], named: list[str]) -> None:
    trainer = Trainer(**{"accelerator": "cpu", "logger": False, "enable_checkpointing": False} | settings)
    assert limits_within_a_pass(trainer) == named

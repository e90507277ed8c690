# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Thousands of steps of a flow and its mixture on data that leave the likelihood without a bound.

Class 0 has identical images and a channel is the same everywhere: the likelihood of both grows for ever. Every loss and
every parameter has to stay finite. ``python -m tests.stress.long_training`` makes 10 000 steps of every family in
float32 and in bfloat16 autocast; it takes some ten minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools

import torch

from anomalib_hgad.models.hgad.flows import FAMILIES
from anomalib_hgad.models.hgad.loss import class_log_likelihood, hgad_losses, total_loss
from anomalib_hgad.models.hgad.moments import ClassMoments
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture
from anomalib_hgad.models.schedule import TrainingCourse, make_optimizer
from tests.helpers.light import LIGHT_FLOW_ARGUMENTS

DIM = 4
CLASS_INDEX = torch.tensor([0, 0, 1, 1])
WEIGHTS = {"inter": 1.0, "mutual_information": 100.0, "entropy": 1.0, "intra": 1.0, "likelihood": 1.0}


def batch() -> torch.Tensor:
    """Features of four images, shape (4, D, 1, 2); new ones of class 1 alone."""
    features = torch.randn(4, DIM, 1, 2)
    features[:2] = 1.0
    features[:, -1] = 5.0
    return features


def train(kind: str, steps: int, half: bool) -> float:
    """Train from the seed 0.

    Args:
        kind: Family of the flow.
        steps: Optimiser steps.
        half: Whether in bfloat16 autocast.

    Returns:
        The last loss.

    Raises:
        ArithmeticError: If a loss, a parameter or a likelihood of normal or strange features is not finite.
    """
    torch.manual_seed(0)
    flow = FAMILIES[kind](DIM, **LIGHT_FLOW_ARGUMENTS[kind])
    moments = ClassMoments(1, DIM, torch.device("cpu"))
    for vectors in (flow.vectors(batch()) for _ in range(20)):
        moments.add(vectors, torch.zeros(len(vectors), dtype=torch.int64))
    flow.set_whitening(*moments.gaussians().pooled())
    prior = HierarchicalGaussianMixture(2, 2, DIM)
    optimizer = make_optimizer(flow.parameters(), prior.parameters(), lr=2e-4, weight_decay=1e-4)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    course = TrainingCourse(steps, warmup=0.08, first_stage=0.08)
    loss = torch.tensor(torch.nan)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-4 * course.learning_rate_factor(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            latents = flow(batch())
            losses = hgad_losses(prior, latents.z, latents.log_det, CLASS_INDEX)
            loss = total_loss(losses, WEIGHTS, course.stage(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not loss.isfinite() or not all(parameter.isfinite().all() for parameter in parameters):
            msg = f"{kind}, step {step}: loss {loss.item()}; {losses}"
            raise ArithmeticError(msg)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        for features in (batch(), torch.zeros(4, DIM, 1, 2), 100 * torch.randn(4, DIM, 1, 2)):
            latents = flow(features)
            density = prior.intra_class_log_density(latents.z, CLASS_INDEX.unsqueeze(-1)).squeeze(-1)
            if not class_log_likelihood(density, latents.log_det, DIM).isfinite().all():
                msg = f"{kind} after {steps} steps: log-densities {density}, log-determinants {latents.log_det}"
                raise ArithmeticError(msg)
    return loss.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are tiny
    for family, in_half in itertools.product(FAMILIES, (False, True)):
        last = train(family, arguments.steps, in_half)
        print(f"{family}, {'bfloat16' if in_half else 'float32'}: {arguments.steps} steps, last loss {last:.3g}")

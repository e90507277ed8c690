# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Benchmarks of the flow and of a training step, on random features at the paper's sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from anomalib_hgad.models.hgad.flows.conditional import ConditionalFlow, FoldedFlow
from anomalib_hgad.models.hgad.loss import hgad_losses
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture
from anomalib_hgad.models.schedule import make_optimizer
from tests.benchmarks.literal import literal_latents, literal_step
from tests.benchmarks.measure import device, median_seconds, peak_megabytes

DIM, CONDITION_DIM, BLOCKS, GRIDS = 200, 256, 12, (64, 32, 16)
CLASSES, CENTERS, BATCH = 15, 10, 8
MAC = 2
"""Floating-point operations of a multiplication with an addition."""


def paper_flow() -> ConditionalFlow:
    """A level's flow at the paper's sizes, whitening included."""
    flow = ConditionalFlow(DIM, BLOCKS, CONDITION_DIM).to(device())
    flow.set_whitening(torch.zeros(DIM), torch.eye(DIM) / 1.01)  # the identity: the literal flow does without
    return flow


def flow() -> dict[str, Any]:
    """(a): forward in inference, forward and backward in training, against the blocks as they are."""
    ratios, medians = {}, {}
    for batch in (BATCH, 1):
        ours, features = paper_flow(), torch.randn(batch, DIM, GRIDS[0], GRIDS[0], device=device())
        folded = FoldedFlow(ours, GRIDS[0], GRIDS[0])
        with torch.no_grad():
            difference = (folded(features).z.flatten(0, 1) - literal_latents(ours, features)[0]).abs().max().item()
            forward = median_seconds(
                literal=lambda ours=ours, features=features: literal_latents(ours, features),
                ours=lambda folded=folded, features=features: folded(features),
            )
        trained = {
            "literal": backward_of(ours, lambda ours=ours, features=features: literal_latents(ours, features)),
            "ours": backward_of(ours, lambda ours=ours, features=features: ours(features)),
        }
        both = median_seconds(**trained)
        ratios |= {
            f"forward, batch {batch}: literal / ours": forward["literal"] / forward["ours"],
            f"forward + backward, batch {batch}: literal / ours": both["literal"] / both["ours"],
            f"memory of forward + backward, batch {batch}: ours / literal": peak_megabytes(trained["ours"])
            / peak_megabytes(trained["literal"]),
            f"largest difference of z, batch {batch}": difference,
        }
        medians |= {f"forward, batch {batch}, {name}, s": value for name, value in forward.items()}
        medians |= {f"forward + backward, batch {batch}, {name}, s": value for name, value in both.items()}
    what = f"{BLOCKS} blocks, D {DIM}, P {CONDITION_DIM}, grid {GRIDS[0]}², against FrEIA's chain of anomalib's blocks"
    return {"what": what, "ratios": ratios, "medians": medians}


def backward_of(flow: nn.Module, latents: Callable[[], tuple[Any, ...]]) -> Callable[[], None]:
    """Forward and backward pass of a standard Gaussian's likelihood."""

    def both() -> None:
        flow.zero_grad()
        z, log_det, *_ = latents()
        (0.5 * z.square().sum(dim=-1) - log_det).mean().backward()

    return both


def step() -> dict[str, Any]:
    """(b): one step on the sum of the levels, against a literal step for each level."""
    features = [torch.randn(BATCH, DIM, grid, grid, device=device()) for grid in GRIDS]
    class_index = torch.arange(BATCH, device=device()) % CLASSES
    flows = nn.ModuleList(paper_flow() for _ in GRIDS)
    priors = nn.ModuleList(HierarchicalGaussianMixture(CLASSES, CENTERS, DIM) for _ in GRIDS).to(device())
    optimizer = make_optimizer(flows.parameters(), priors.parameters(), 2e-4, 1e-4)

    def ours() -> None:
        levels = []
        for flow, prior, level in zip(flows, priors, features, strict=True):
            latents = flow(level)
            losses = hgad_losses(prior, latents.z, latents.log_det, class_index)
            levels.append(torch.stack(losses))
        terms = torch.stack(levels).sum(dim=0)
        optimizer.zero_grad()
        (terms @ torch.tensor([1.0, 100.0, 1.0, 1.0, 1.0], device=device())).backward()
        optimizer.step()

    def literal() -> None:
        literal_step(list(flows), list(priors), optimizer, features, class_index)

    seconds = median_seconds(literal=literal, ours=ours)
    memory = {"literal": peak_megabytes(literal), "ours": peak_megabytes(ours), "prior and losses": losses_megabytes()}
    return {
        "what": f"training step, batch {BATCH}, levels {GRIDS}, K {CLASSES}, M {CENTERS}, against the literal formulas",
        "ratios": {
            "time: literal / ours": seconds["literal"] / seconds["ours"],
            "memory: ours / literal": memory["ours"] / memory["literal"],
        },
        "medians": {f"{name}, s": value for name, value in seconds.items()}
        | {f"{name}, MB": value for name, value in memory.items()},
    }


def losses_megabytes() -> float:
    """Memory of prior and losses, forward and backward, at N = 32768, K = 40, M = 10."""
    prior = HierarchicalGaussianMixture(40, 10, DIM).to(device())
    z = torch.randn(8, 4096, DIM, device=device(), requires_grad=True)
    log_det = torch.zeros(8, 4096, device=device(), requires_grad=True)

    def both() -> None:
        torch.stack(hgad_losses(prior, z, log_det, torch.arange(8, device=device()))).sum().backward()

    return peak_megabytes(both)


def roofline() -> dict[str, Any]:
    """(f): share of the machine's matrix-product rate in float32 that the flow reaches in inference."""
    size = 4096 if device().type == "cuda" else 2048
    left, right = torch.randn(2, size, size, device=device()).unbind()
    features = torch.randn(BATCH, DIM, GRIDS[0], GRIDS[0], device=device())
    folded = FoldedFlow(paper_flow(), GRIDS[0], GRIDS[0])
    with torch.no_grad():
        seconds = median_seconds(product=lambda: left @ right, flow=lambda: folded(features))
    hidden = 2 * (DIM // 2 + CONDITION_DIM)
    of_block = DIM // 2 * hidden + hidden * DIM + DIM * DIM
    operations = MAC * BATCH * GRIDS[0] ** 2 * (BLOCKS * of_block + DIM * DIM)
    rates = {"product": MAC * size**3 / seconds["product"] / 1e9, "flow": operations / seconds["flow"] / 1e9}
    return {
        "what": f"float32, a product of {size}² matrices against the matrix products of the flow in inference",
        "ratios": {"flow / matrix product": rates["flow"] / rates["product"]},
        "medians": {f"{name}, GFLOP/s": value for name, value in rates.items()},
    }

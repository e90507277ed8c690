# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Families of flows. The mixture, its losses and the scores are the same for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.models.hgad.flows.base import FeatureFlow, Latents
from anomalib_hgad.models.hgad.flows.conditional import ConditionalFlow
from anomalib_hgad.models.hgad.flows.fastflow import FastFlow
from anomalib_hgad.models.hgad.flows.semantic import SemanticFlow

FlowKind = Literal["cflow", "fastflow", "semantic"]

FAMILIES: dict[FlowKind, type[FeatureFlow]] = {"cflow": ConditionalFlow, "fastflow": FastFlow, "semantic": SemanticFlow}
"""Classes of the families."""

__all__ = ["FAMILIES", "ConditionalFlow", "FastFlow", "FeatureFlow", "FlowKind", "Latents", "SemanticFlow", "make_flow"]


def make_flow(
    kind: FlowKind,
    dim: int,
    coupling_blocks: int | None = None,
    clamp_alpha: float | None = None,
    condition_dim: int = 256,
    kernel_sizes: Sequence[int] = (3, 1),
    hidden_ratio: float = 1.0,
) -> FeatureFlow:
    """Make the flow of one feature level.

    Args:
        kind: Its family.
        dim: D, channels of the features.
        coupling_blocks: Number of coupling blocks. ``None`` is the family's own, as is the next one.
        clamp_alpha: Clamp of the log-scales.
        condition_dim: Length of the position code of ``"cflow"``.
        kernel_sizes: Widths of the convolutions of ``"fastflow"``, in turn.
        hidden_ratio: Hidden channels of its couplings, relative to the channels that they look at.

    Returns:
        The flow.

    Raises:
        ValueError: If an argument is out of range.
    """
    check_range("0 < {} < inf", clamp_alpha=1.0 if clamp_alpha is None else clamp_alpha)
    common = {"coupling_blocks": coupling_blocks, "clamp_alpha": clamp_alpha}
    given: dict[str, Any] = {name: value for name, value in common.items() if value is not None}
    own: dict[FlowKind, dict[str, Any]] = {
        "cflow": {"condition_dim": condition_dim},
        "fastflow": {"kernel_sizes": kernel_sizes, "hidden_ratio": hidden_ratio},
        "semantic": {},
    }
    return FAMILIES[kind](dim, **own[kind], **given)

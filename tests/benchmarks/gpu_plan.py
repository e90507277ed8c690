# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Models that the benchmark of a GPU measures, at full size and cut down for a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A model, and what it is measured on.

    Attributes:
        model: Arguments of :class:`~anomalib_hgad.Hgad`.
        training: Images in a training step.
        shares: Shares of the positions that a training step takes.
        inference: Images in a batch of inference.
        calls: Calls in a row that one time is taken of.
    """

    model: dict[str, Any]
    training: Sequence[int] = ()
    shares: Sequence[float] = (0.25,)
    inference: Sequence[int] = ()
    calls: int = 10


class Plan(NamedTuple):
    """What is measured.

    Attributes:
        settings: Models by name; long trainings, scores and the ONNX graph are those of the first.
        pool: Images whose features a long training takes again and again, half of them in a step.
        steps: Training steps in a row that must stay finite.
        steps_before_scores: Training steps before scores are compared.
    """

    settings: dict[str, Setting]
    pool: int
    steps: int
    steps_before_scores: int


FULL = Plan(
    {
        "resnet18 layer3, 256 px": Setting(
            {"backbone": "resnet18", "levels": {"layer3": [1.0, 0.5, 0.25]}, "image_size": 256, "num_classes": 5},
            training=(8, 32),
            inference=(1, 32),
        ),
        "tf_efficientnet_b6 blocks.4, 1024 px": Setting(
            {
                "backbone": "tf_efficientnet_b6",
                "levels": {"blocks.4": [1.0, 0.5, 0.25]},
                "image_size": 1024,
                "num_classes": 15,
            },
            training=(8,),
            shares=(0.25, 1.0),
            inference=(1, 8),
            calls=4,
        ),
        "vit_base_patch14_reg4_dinov2 blocks.5 and blocks.8, 392 px": Setting(
            {
                "backbone": "vit_base_patch14_reg4_dinov2",
                "levels": {"blocks.5": [1.0], "blocks.8": [1.0]},
                "image_size": 392,
                "num_classes": 5,
            },
            inference=(1, 32),
        ),
    },
    pool=64,
    steps=1000,
    steps_before_scores=50,
)
SMALL = {"flow_arguments": {"coupling_blocks": 2, "condition_dim": 8}, "num_classes": 2}
CUT = Plan(
    {
        "resnet18 layer3, 32 px": Setting(
            SMALL | {"backbone": "resnet18", "levels": {"layer3": [1.0, 0.5, 0.25]}, "image_size": 32},
            training=(2,),
            shares=(0.25, 1.0),
            inference=(2,),
            calls=1,
        ),
        "vit_tiny_patch16_224 blocks.1, 32 px": Setting(
            SMALL | {"backbone": "vit_tiny_patch16_224", "levels": {"blocks.1": [1.0]}, "image_size": 32},
            inference=(1,),
            calls=1,
        ),
    },
    pool=8,
    steps=20,
    steps_before_scores=5,
)

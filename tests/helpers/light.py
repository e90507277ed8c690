# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Settings of models that train in a second, with a backbone that needs no download."""

from __future__ import annotations

from typing import Any

LIGHT_FLOW_ARGUMENTS: dict[str, dict[str, Any]] = {
    "cflow": {"coupling_blocks": 2, "condition_dim": 16},
    "fastflow": {"coupling_blocks": 2},
    "semantic": {"coupling_blocks": 2},
    "linear": {},
}
"""Options of every family of flows."""

TRAINED: dict[str, Any] = {
    "neighborhood": 1,
    "flow": "cflow",
    "covariance": "identity",
    "score": "sum",
    "score_share": 0.0,
}
"""What a model that is trained has in place of the defaults, which are fitted in closed form."""

LIGHT: dict[str, Any] = TRAINED | {
    "backbone": "test_resnet",
    "levels": {"layer2": [1.0, 0.5]},
    "image_size": 32,
    "pre_trained": False,
    "flow_arguments": LIGHT_FLOW_ARGUMENTS["cflow"],
}

LIGHT_VIT: dict[str, Any] = TRAINED | {
    "backbone": "vit_tiny_patch16_224",
    "levels": {"blocks.1": [1.0]},
    "image_size": 32,
    "pre_trained": False,
}
LIGHT_UNIAD: dict[str, Any] = {
    "backbone": "test_resnet",
    "layers": ["layer1", "layer2"],
    "image_size": 32,
    "pre_trained": False,
    "grid_size": 4,
    "hidden_dim": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_heads": 2,
    "feedforward_dim": 16,
    "neighborhood": 3,
}

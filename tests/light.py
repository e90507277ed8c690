# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Settings of a model that trains in a second, with a backbone that needs no download."""

from __future__ import annotations

from typing import Any

LIGHT: dict[str, Any] = {
    "backbone": "resnet18",
    "layers": ["layer2"],
    "scales": [1.0, 0.5],
    "image_size": 32,
    "pre_trained": False,
    "coupling_blocks": 2,
    "condition_dim": 16,
}

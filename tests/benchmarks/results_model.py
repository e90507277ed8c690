# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The model of docs/results.md, which several commands train on real images."""

from __future__ import annotations

import argparse
from typing import Any

from anomalib_hgad import Hgad


def results_model(arguments: argparse.Namespace, **changes: Any) -> Hgad:
    """Hgad on one layer of resnet18 at three scales.

    Args:
        arguments: A command's ``weights``, ``image_size`` and ``coupling_blocks``.
        **changes: Other arguments of the model, or further ones.

    Returns:
        The model.
    """
    setting: dict[str, Any] = {
        "backbone": "resnet18",
        "backbone_weights": arguments.weights,
        "layers": ["layer3"],
        "image_size": arguments.image_size,
        "coupling_blocks": arguments.coupling_blocks,
        "condition_dim": 128,
    }
    return Hgad(**setting | changes)

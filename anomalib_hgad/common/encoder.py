# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen backbone: images to feature levels (HGAD, Sec. 4.1).

A level is a layer at a scale: one layer of an image pyramid is the paper's setting, several layers of the image itself
CFLOW-AD's.

Dimensions: B images, D channels of a level, H x W its grid.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
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

from anomalib_hgad.common.checks import check_range


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


def layers_of_scales(
    backbone: str, levels: Mapping[str, Sequence[float]], known: Sequence[str]
) -> dict[float, list[str]]:
    """Layers that are taken at each scale of the image.

    Args:
        backbone: timm model name.
        levels: Scales at which each layer is taken.
        known: Layers that the backbone has, shallow to deep.

    Returns:
        For each scale, in the order in which ``levels`` has them, its layers, shallow to deep.

    Raises:
        ValueError: If there is no layer or no scale of one, if the backbone has no such layer, or if a scale is not
            positive, not finite, or given twice.
    """
    if not levels:
        msg = "levels has no layer: expected scales by layer, such as {'layer3': [1.0, 0.5]}."
        raise ValueError(msg)
    for layer, scales in levels.items():
        if layer not in known:
            msg = f"{backbone} has no layer {layer!r}. Available: {', '.join(known)}."
            raise ValueError(msg)
        if not scales:
            msg = f"levels has no scale for {layer}: expected at least one, such as {{{layer!r}: [1.0]}}."
            raise ValueError(msg)
        for scale in scales:
            check_range("0 < {} < inf", **{f"scale of {layer}": scale})
        if len(set(scales)) != len(scales):
            msg = f"levels has a scale of {layer} twice: expected every scale once, got {list(scales)}."
            raise ValueError(msg)
    distinct = dict.fromkeys(float(scale) for scales in levels.values() for scale in scales)
    return {scale: [layer for layer in known if scale in levels.get(layer, ())] for scale in distinct}


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
        levels: Layers whose features are taken, and for each of them the sizes of the pyramid's images, relative to
            the input, at which it is taken.
        pre_trained: Download the weights of timm's hub. Ignored when ``backbone_weights`` is given.
        backbone_weights: Local weights file.
        tokens: Take all tokens of a Vision Transformer in place of a map of its patches: the class token first, then
            those that are no patch, then the patches.

    Attributes:
        backbone: timm model name.
        layers_of_scales: Layers of every scale, in the order of the levels.
        out_dims: D of each level.

    Raises:
        ValueError: If there is no such backbone or layer, if a scale is out of range or given twice, or if the backbone
            has no class token but tokens are asked for.
        FileNotFoundError: If there is no file of weights at the given path.
        RuntimeError: If the weights cannot be downloaded.
    """

    def __init__(
        self,
        backbone: str,
        levels: Mapping[str, Sequence[float]],
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        known = available_layers(backbone)
        self.layers_of_scales = layers_of_scales(backbone, levels, known)
        if tokens:
            _check_class_token(backbone)
        self.tokens = tokens
        layers = [layer for layer in known if layer in levels]
        try:
            self.extractor = TimmFeatureExtractor(
                backbone,
                layers,
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
        dims = dict(zip(layers, self.extractor.out_dims, strict=True))
        self.out_dims = [dims[layer] for taken in self.layers_of_scales.values() for layer in taken]
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
            Features, one tensor of shape (B, D, H, W) for every scale and, within a scale, every layer that is taken at
            it; T tokens have the shape (B, D, 1, T).
        """
        levels: list[torch.Tensor] = []
        for scale, layers in self.layers_of_scales.items():
            features = self.extractor(images if scale == 1 else _resize(images, scale))
            levels.extend(features[layer] for layer in layers)
        return [rearrange(level, "b t d -> b d 1 t") for level in levels] if self.tokens else levels

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Check that an image has pixels at all scales, and is what a Vision Transformer can cut into patches.

        Args:
            image_size: Height and width.

        Raises:
            ValueError: If it has none, or is not.
        """
        for scale in self.layers_of_scales:
            if min(_scaled(image_size, scale)) < 1:
                msg = f"image_size={image_size} at scale {scale} leaves no pixel. Take a larger image_size or scale."
                raise ValueError(msg)
        backbone = self.extractor.feature_extractor
        patches = getattr(getattr(backbone, "model", backbone), "patch_embed", None)
        if not isinstance(patches, PatchEmbed):
            return
        for scale in self.layers_of_scales:
            size = _scaled(image_size, scale)
            if patches.strict_img_size and size != list(patches.img_size):
                msg = f"{self.backbone} takes images of {' x '.join(map(str, patches.img_size))} pixels "
                msg += f"alone, got image_size={image_size} at scale {scale}. Take that image_size at scale 1 alone."
                raise ValueError(msg)
            if any(length % patch for length, patch in zip(size, patches.patch_size, strict=True)):
                msg = f"{self.backbone} cuts images into patches of {patches.patch_size[0]} pixels: expected "
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

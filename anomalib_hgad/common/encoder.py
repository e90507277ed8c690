# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen backbone: images to feature levels (HGAD, Sec. 4.1).

A level is a layer, or the mean of several layers, at a scale. The paper uses one layer of an image pyramid, CFLOW-AD
several layers of the image itself, Dinomaly means of groups of blocks of a Vision Transformer.

Dimensions: B images, D channels of a level, H x W its grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from einops import rearrange
from timm.layers.patch_embed import PatchEmbed
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from anomalib_hgad.common.backbone_weights import load_backbone_weights
from anomalib_hgad.common.backbones import Anatomy, anatomy, as_map, check_class_token, make_extractor
from anomalib_hgad.common.checks import check_range


def layers_of_levels(backbone: str, known: Anatomy, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the layers that each level consists of.

    Args:
        backbone: timm model name.
        known: Its anatomy.
        names: Names of layers, or of groups of them: ``blocks.2+3`` is the mean of ``blocks.2`` and ``blocks.3``.

    Returns:
        The layers by name, ordered by the first layer of each name, shallow to deep.

    Raises:
        ValueError: If the backbone has no such layer, or if a group names a layer twice.
    """
    members = {}
    for name in names:
        first, *others = name.split("+")
        stem, dot, _ = known.canonical(first).rpartition(".")
        members[name] = [known.canonical(layer) for layer in (first, *(stem + dot + other for other in others))]
        for layer in members[name]:
            if layer not in known.layers:
                msg = f"{backbone} has no layer {layer!r}. Available: {', '.join(known.layers)}."
                raise ValueError(msg)
        if len(set(members[name])) != len(members[name]):
            msg = f"levels names a layer twice in {name!r}: expected every layer of a group once."
            raise ValueError(msg)
    return dict(sorted(members.items(), key=lambda item: [known.layers[layer] for layer in item[1]]))


def names_of_scales(levels: Mapping[str, Sequence[float]], order: Sequence[str]) -> dict[float, list[str]]:
    """Return the layers and groups used at each scale of the image.

    Args:
        levels: Scales of every layer or group of layers.
        order: Their names, shallow to deep.

    Returns:
        For each scale, in the order of ``levels``, the names of its layers and groups, shallow to deep.

    Raises:
        ValueError: If there is no layer, if a layer has no scale, or if a scale is not positive, not finite or given
            twice.
    """
    if not levels:
        msg = "levels is empty: expected scales by layer, such as {'layer3': [1.0, 0.5]}."
        raise ValueError(msg)
    for layer, scales in levels.items():
        if not scales:
            msg = f"levels has no scale for {layer}: expected at least one, such as {{{layer!r}: [1.0]}}."
            raise ValueError(msg)
        for scale in scales:
            check_range("0 < {} < inf", **{f"scale of {layer}": scale})
        if len(set(scales)) != len(scales):
            msg = f"levels repeats a scale of {layer}: expected every scale once, got {list(scales)}."
            raise ValueError(msg)
    distinct = dict.fromkeys(float(scale) for scales in levels.values() for scale in scales)
    return {scale: [layer for layer in order if scale in levels[layer]] for scale in distinct}


def neighborhood_mean(features: torch.Tensor, side: int) -> torch.Tensor:
    """Average the features over a square around each position (PatchCore, Roth et al., CVPR 2022, Eq. 2).

    Args:
        features: Features, shape (B, D, H, W).
        side: Odd side of the square. At the border, only positions within the map count.

    Returns:
        The means, same shape.
    """
    if side == 1:
        return features
    return F.avg_pool2d(features, side, stride=1, padding=side // 2, count_include_pad=False)


class PyramidEncoder(nn.Module):
    """Frozen backbone applied to an image pyramid.

    Args:
        backbone: timm model name.
        levels: Layers to extract, or groups such as ``blocks.2+3``, whose mean is extracted. The values are the image
            sizes of the pyramid for each of them, relative to the input.
        pre_trained: Download timm's weights from the hub. Ignored when ``backbone_weights`` is given.
        backbone_weights: Local weights file, or ``"package"`` for those of an installed package.
        neighborhood: Odd side of the square of positions over which features are averaged; 1 does not average.
        tokens: Extract all tokens of a Vision Transformer instead of a map of its patches: the class token first,
            then other tokens such as registers, then the patch tokens.

    Attributes:
        backbone: timm model name.
        names_of_scales: Layers and groups of each scale, in the order of the levels.
        settings: All settings that the features depend on, as plain data.
        out_dims: D of each level.

    Raises:
        ValueError: If there is no such backbone or layer, if a scale is out of range or given twice, if the layers of
            a group have maps of different shapes, if ``neighborhood`` is even, or if tokens are requested and the
            backbone has no class token or tokens would be averaged.
        FileNotFoundError: If the weights file does not exist.
        ModuleNotFoundError: If the package of the weights is not installed.
        RuntimeError: If the weights cannot be downloaded.
    """

    def __init__(
        self,
        backbone: str,
        levels: Mapping[str, Sequence[float]],
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        neighborhood: int = 1,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        if neighborhood < 1 or neighborhood % 2 == 0:
            msg = f"A neighborhood needs a middle position: expected neighborhood to be odd, got {neighborhood}."
            raise ValueError(msg)
        if tokens and neighborhood > 1:
            msg = f"Tokens of a Vision Transformer have no neighbours: expected neighborhood=1, got {neighborhood}."
            raise ValueError(msg)
        self.backbone = backbone
        self.neighborhood = neighborhood
        known = anatomy(backbone)
        self._members = layers_of_levels(backbone, known, list(levels))
        self.names_of_scales = names_of_scales(levels, list(self._members))
        self.settings: dict[str, object] = {
            "backbone": backbone,
            "levels": [
                ("+".join(self._members[name]), scale)
                for scale, names in self.names_of_scales.items()
                for name in names
            ],
            "neighborhood": neighborhood,
        }
        if tokens:
            check_class_token(backbone)
        self.tokens = tokens
        taken = {layer for layers in self._members.values() for layer in layers}
        layers = [layer for layer in known.layers if layer in taken]
        try:
            self.extractor = make_extractor(
                backbone, known, layers, pre_trained=pre_trained and backbone_weights is None, class_token=tokens
            )
        except Exception as error:
            if not pre_trained or backbone_weights is not None:
                raise
            msg = f"The weights of {backbone} could not be downloaded ({type(error).__name__}: {error}). Without "
            msg += "internet, give a local file: backbone_weights=/path/to/weights.safetensors."
            raise RuntimeError(msg) from error
        if backbone_weights is not None:
            load_backbone_weights(self.extractor.feature_extractor, backbone_weights, backbone)
        self.extractor.requires_grad_(requires_grad=False)
        self.out_dims = self._dims(dict(zip(layers, self.extractor.out_dims, strict=True)))
        self.train()

    def _dims(self, dims: Mapping[str, int]) -> list[int]:
        """Return D of each level, given that of each layer."""
        strides = dict(zip(dims, getattr(self.extractor, "reductions", [1] * len(dims)), strict=True))
        for name, layers in self._members.items():
            if len({(dims[layer], strides[layer]) for layer in layers}) > 1:
                of_layers = ", ".join(f"{layer}: {dims[layer]} channels, stride {strides[layer]}" for layer in layers)
                msg = f"levels has a group {name!r} of layers of {self.backbone} with maps of different shapes "
                msg += f"({of_layers}). Give these layers as separate levels."
                raise ValueError(msg)
        return [dims[self._members[name][0]] for names in self.names_of_scales.values() for name in names]

    def train(self, mode: bool = True) -> PyramidEncoder:  # noqa: ARG002 - a frozen backbone is always in eval mode
        """Stay in eval mode, so that no batch changes the running statistics of the backbone."""
        return super().train(mode=False)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Extract the features of all levels.

        Args:
            images: Normalised images, shape (B, 3, height, width).

        Returns:
            One tensor of shape (B, D, H, W) for every scale and, within a scale, every layer or group; T tokens have
            the shape (B, D, 1, T).
        """
        levels: list[torch.Tensor] = []
        for scale, names in self.names_of_scales.items():
            scaled = images if scale == 1 else _resize(images, scale)
            features = self.extractor(scaled)
            for name in names:
                of_layers = [features[layer] for layer in self._members[name]]
                level = of_layers[0] if len(of_layers) == 1 else torch.stack(of_layers).mean(dim=0)
                if self.tokens:
                    levels.append(rearrange(level, "b t d -> b d 1 t"))
                else:
                    levels.append(
                        neighborhood_mean(as_map(self.extractor.feature_extractor, level, scaled), self.neighborhood)
                    )
        return levels

    def check_image_size(self, image_size: tuple[int, int]) -> None:
        """Check that an image has pixels at all scales and a size that the backbone accepts.

        Args:
            image_size: Height and width.

        Raises:
            ValueError: If it has not.
        """
        model = self.extractor.feature_extractor
        patches = getattr(model, "patch_embed", None)
        for scale in self.names_of_scales:
            size = _scaled(image_size, scale)
            if min(size) < 1:
                msg = f"image_size={image_size} at scale {scale} leaves no pixel. Use a larger image_size or scale."
                raise ValueError(msg)
            if isinstance(patches, PatchEmbed) and any(
                length % patch for length, patch in zip(size, patches.patch_size, strict=True)
            ):
                msg = f"{self.backbone} cuts images into patches of {patches.patch_size[0]} pixels: expected "
                msg += f"image_size={image_size} times scale {scale} to be a multiple of that."
                raise ValueError(msg)
            self._check_run(image_size, scale)

    def _check_run(self, image_size: tuple[int, int], scale: float) -> None:
        """Check that the backbone accepts an image size, from shapes only, without computing anything."""
        state = {**dict(self.extractor.named_parameters()), **dict(self.extractor.named_buffers())}
        shapes = {name: tensor.to("meta") for name, tensor in state.items()}
        dtype = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
        images = torch.empty(1, 3, *_scaled(image_size, scale), dtype=dtype, device="meta")
        try:
            with torch.no_grad():
                functional_call(self.extractor, shapes, (images,))
        except (AssertionError, RuntimeError, ValueError) as error:
            height, width = cast("dict[str, Any]", self.extractor.feature_extractor.default_cfg)["input_size"][1:]
            msg = f"{self.backbone} does not accept image_size={image_size} at scale {scale} ({error}). It is built "
            msg += f"for {height} x {width} pixels: use that image_size at scale 1 only, or a convolutional backbone."
            raise ValueError(msg) from error


def _resize(images: torch.Tensor, scale: float) -> torch.Tensor:
    return F.interpolate(images, size=_scaled(images.shape[-2:], scale), mode="bilinear", align_corners=True)


def _scaled(size: Sequence[int], scale: float) -> list[int]:
    return [int(length * scale) for length in size]

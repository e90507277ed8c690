# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the features of every family of timm's backbones against timm's ``forward_intermediates``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from anomalib_hgad.common.backbones import anatomy, available_layers
from anomalib_hgad.common.encoder import PyramidEncoder

pytestmark = pytest.mark.usefixtures("seeded")

ANY_SIZE: dict[str, Any] = {"size": (64, 96)}
SWIN: dict[str, Any] = ANY_SIZE | {"options": {"strict_img_size": False}}
TRANSFORMER: dict[str, Any] = ANY_SIZE | {"options": {"dynamic_img_size": True}, "norm": True}
PATCHES_OF_14: dict[str, Any] = TRANSFORMER | {"size": (56, 84)}
OWN_SIZE: dict[str, Any] = {"size": (160, 160)}
FAMILIES: dict[str, dict[str, Any]] = {
    # Convolutional networks.
    "test_resnet": ANY_SIZE,
    "seresnet18": ANY_SIZE,
    "resnetv2_18": ANY_SIZE,
    "test_efficientnet": ANY_SIZE,
    "mobilenetv2_035": ANY_SIZE,
    "mobilenetv3_small_050": ANY_SIZE,
    "lcnet_035": ANY_SIZE,
    "test_convnext": ANY_SIZE,
    "convnextv2_atto": ANY_SIZE,
    "regnetx_002": ANY_SIZE,
    "densenet121": ANY_SIZE,
    "hrnet_w18_small": ANY_SIZE,
    "test_nfnet": ANY_SIZE,
    "test_byobnet": ANY_SIZE,
    "rexnet_100": ANY_SIZE,
    "ghostnet_050": ANY_SIZE,
    "hgnetv2_b0": ANY_SIZE,
    "dla34": ANY_SIZE,
    "ese_vovnet19b_dw": ANY_SIZE,
    "xception41": ANY_SIZE,
    "inception_next_atto": ANY_SIZE,
    "test_mambaout": ANY_SIZE,  # channels last
    # Convolutional networks whose names say "vit".
    "repvit_m0_9": ANY_SIZE,
    "fastvit_t8": ANY_SIZE,
    # Vision Transformers.
    "vit_tiny_patch16_224": TRANSFORMER,
    "deit_tiny_patch16_224": TRANSFORMER,
    "deit_tiny_distilled_patch16_224": TRANSFORMER,
    "deit3_small_patch16_224": TRANSFORMER,
    "vit_small_patch14_dinov2": PATCHES_OF_14,
    "vit_small_patch14_reg4_dinov2": PATCHES_OF_14,
    "vit_small_patch16_dinov3": TRANSFORMER,
    "eva02_tiny_patch14_224": PATCHES_OF_14,
    # Transformers of several stages, and mixtures of both kinds.
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "pvt_v2_b0": ANY_SIZE,
    "poolformer_s12": ANY_SIZE,
    "edgenext_xx_small": ANY_SIZE,
    "mobilevit_xxs": ANY_SIZE,
    "efficientvit_b0": ANY_SIZE,
    "test_maxvit": OWN_SIZE,
    "test_coatnet": OWN_SIZE,
    "test_vit_relpos": OWN_SIZE,
    "cait_xxs24_224": {"size": (224, 224)},
}
"""A small backbone of every family, with the size of its images, and how timm builds it for them."""

FOR_THE_NIGHT = {
    *("cait_xxs24_224", "deit3_small_patch16_224", "poolformer_s12", "swinv2_tiny_window8_256"),
    *("vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "xception41", "densenet121", "dla34", "hgnetv2_b0"),
    *("ese_vovnet19b_dw", "seresnet18", "resnetv2_18", "rexnet_100", "ghostnet_050", "regnetx_002"),
    *("deit_tiny_patch16_224", "fastvit_t8", "hrnet_w18_small", "repvit_m0_9"),
}
"""The slowest of those that are built like others."""


def randomized(model: nn.Module) -> nn.Module:
    """The model with weights and running statistics that are not those of the start."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim:
            tensor.add_(0.02 * torch.rand_like(tensor))
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "how"),
    [
        pytest.param(*family, id=family[0], marks=[pytest.mark.nightly] * (family[0] in FOR_THE_NIGHT))
        for family in FAMILIES.items()
    ],
)
def test_levels_are_timms_intermediates(backbone: str, how: dict[str, Any], tmp_path: Path) -> None:
    """Of the whole model, on an image that is not square, with the same weights, which come from a file."""
    whole = randomized(timm.create_model(backbone, **how.get("options", {})))
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    layers = available_layers(backbone)
    taken = layers if len(layers) <= 6 else [layers[1], layers[-2]]
    levels = {layer: [1.0] for layer in reversed(taken)}
    encoder = PyramidEncoder(backbone, levels, backbone_weights=tmp_path / "weights.pth")
    encoder.check_image_size(how["size"])
    images = torch.randn(2, 3, *how["size"])
    with torch.no_grad():
        expected = whole.forward_intermediates(
            images,
            indices=[layers.index(layer) for layer in taken],
            norm=how.get("norm", False),
            output_fmt="NCHW",
            intermediates_only=True,
        )
    found = encoder(images)
    assert [level.shape[1] for level in found] == encoder.out_dims
    for layer, level, reference in zip(taken, found, expected, strict=True):
        stride = whole.feature_info[layers.index(layer)]["reduction"]
        assert level.shape == reference.shape
        assert level.shape[2:] == tuple(math.ceil(side / stride) for side in how["size"])
        torch.testing.assert_close(level, reference, rtol=1e-4, atol=1e-5 * float(reference.abs().max()))


@pytest.mark.parametrize("size", [392, 448])
@pytest.mark.parametrize("backbone", ["vit_small_patch14_reg4_dinov2", "deit_tiny_patch16_224"])
def test_sizes_that_a_vision_transformer_was_not_trained_on(backbone: str, size: int) -> None:
    """Its position embeddings are resampled by timm."""
    encoder = PyramidEncoder(backbone, {"blocks.0": [1.0, 0.5]}, pre_trained=False)
    patch = encoder.extractor.feature_extractor.patch_embed.patch_size[0]
    size -= size % (2 * patch)
    encoder.check_image_size((size, size))
    grids = [level.shape[2:] for level in encoder(torch.zeros(1, 3, size, size))]
    assert grids == [(size // patch, size // patch), (size // 2 // patch, size // 2 // patch)]


@pytest.mark.parametrize("name", ["stages.2", "stages_2"])
def test_layers_go_by_both_of_timms_names(name: str) -> None:
    encoder = PyramidEncoder("test_convnext", {name: [1.0]}, pre_trained=False)
    plain = timm.create_model("test_convnext", features_only=True, out_indices=(2,)).eval()
    plain.load_state_dict(encoder.extractor.feature_extractor.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), plain(images))


@pytest.mark.parametrize("backbone", ["test_vit", "vit_small_patch16_dinov3"])
def test_a_group_is_the_mean_of_its_layers(backbone: str) -> None:
    levels = {"blocks.3": [0.5], "blocks.1+2+4": [1.0, 0.5]}
    encoder = PyramidEncoder(backbone, levels, pre_trained=False)
    randomized(encoder)  # DINOv3 starts with blocks that do next to nothing
    single = PyramidEncoder(backbone, {f"blocks.{index}": [1.0] for index in (1, 2, 4)}, pre_trained=False)
    single.load_state_dict(encoder.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert encoder.names_of_scales == {0.5: ["blocks.1+2+4", "blocks.3"], 1.0: ["blocks.1+2+4"]}
    _, _, mean = encoder(images)
    first, second, third = single(images)
    torch.testing.assert_close(mean, (first + second + third) / 3)


@pytest.mark.parametrize(
    ("backbone", "levels", "size", "message"),
    [
        ("crossvit_tiny_240", {"blocks.0": [1.0]}, 240, "crossvit_tiny_240 has several branches .* wide_resnet50_2"),
        (
            "test_maxvit",
            {"stages.1": [1.0]},
            96,
            r"test_maxvit does not accept .*96, 96\) at .* 160 x 160 pix",
        ),
        (
            "test_coatnet",
            {"stages.3": [1.0, 0.5]},
            160,
            r"test_coatnet does not accept .* at scale 0\.5 .* scale 1 only",
        ),
        ("vit_small_patch14_dinov2", {"blocks.1": [1.0]}, 64, "patches of 14 pixels"),
        ("test_resnet", {"layer2+9": [1.0]}, 64, r"test_resnet has no layer '9'\. Available: act1, layer1"),
        ("test_vit", {"blocks.2+9": [1.0]}, 64, r"test_vit has no layer 'blocks\.9'"),
        ("test_vit", {"blocks.2+3+2": [1.0]}, 64, r"a layer twice in 'blocks\.2\+3\+2'"),
        (
            "test_convnext",
            {"stages.1+2": [1.0]},
            64,
            r"maps of different shapes \(stages\.1: \d+ channels, stride 8, stages\.2: ",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    backbone: str, levels: dict[str, list[float]], size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PyramidEncoder(backbone, levels, pre_trained=False).check_image_size((size, size))


def test_looking_at_a_backbone_draws_no_random_number() -> None:
    """Else a seed would give one model the first time, and another later: what is known of a backbone is kept."""
    anatomy.cache_clear()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert anatomy("resnet10t") is anatomy("resnet10t")
    assert torch.equal(torch.get_rng_state(), before)

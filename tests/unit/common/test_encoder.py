# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the frozen backbone against timm, and of what it says about bad settings and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from scipy.ndimage import uniform_filter
from torch.nn import functional as F

from anomalib_hgad.common.backbones import available_layers, image_statistics
from anomalib_hgad.common.encoder import PyramidEncoder, neighborhood_mean

pytestmark = pytest.mark.usefixtures("seeded")

RESNET_LAYERS = ["act1", "layer1", "layer2", "layer3", "layer4"]


def untrained(levels: dict[str, list[float]], backbone: str = "resnet18") -> PyramidEncoder:
    """An encoder without a download."""
    return PyramidEncoder(backbone, levels, pre_trained=False)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """A whole resnet18 with weights and running statistics of its own."""
    model = timm.create_model("resnet18")
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.05 + 0.01)
    return model.state_dict()


@pytest.mark.parametrize(
    ("levels", "taken"),
    [
        ({"layer3": [1.0, 0.5], "layer2": [1.0, 0.5]}, [(1.0, 2), (1.0, 3), (0.5, 2), (0.5, 3)]),
        ({"layer2": [1.0], "layer3": [1, 0.5]}, [(1.0, 2), (1.0, 3), (0.5, 3)]),
        ({"layer3": [0.5], "layer1": [1.0], "layer2": [0.5]}, [(0.5, 2), (0.5, 3), (1.0, 1)]),
    ],
    ids=["all layers at all scales", "scales of each layer", "no layer at all scales"],
)
def test_levels_are_timms_features_scale_by_scale_and_layer_by_layer(
    levels: dict[str, list[float]], taken: list[tuple[float, int]]
) -> None:
    """Scales in the order in which they are named first, layers as they lie in the backbone; one run for a scale."""
    encoder = untrained(levels)
    runs = []
    encoder.extractor.register_forward_pre_hook(lambda *_: runs.append(1))
    plain = timm.create_model("resnet18", features_only=True).eval()
    missing = plain.load_state_dict(encoder.extractor.feature_extractor.state_dict(), strict=False).missing_keys
    assert all(name.startswith(("layer3", "layer4")) for name in missing)
    images = torch.randn(2, 3, 64, 96)
    half = F.interpolate(images, size=(32, 48), mode="bilinear", align_corners=True)
    with torch.no_grad():
        features = {1.0: plain(images), 0.5: plain(half)}
    found = encoder(images)
    assert len(runs) == len({scale for scale, _ in taken})
    assert encoder.out_dims == [32 * 2**index for _, index in taken]
    for level, (scale, index) in zip(found, taken, strict=True):
        assert level.shape == (2, 32 * 2**index, 32 * scale / 2**index, 48 * scale / 2**index)
        torch.testing.assert_close(level, features[scale][index], rtol=1e-5, atol=1e-6)


def test_scales_keep_the_corners_of_the_image() -> None:
    """The bilinear pyramid has aligned corners: a ramp stays a ramp between the same ends."""
    seen = []
    encoder = untrained({"layer1": [0.25, 1.0, 2.0]})
    encoder.extractor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    encoder(ramp)
    for image, size in zip(seen, (16, 64, 128), strict=True):
        torch.testing.assert_close(image, torch.linspace(-1, 1, size).expand(1, 3, size, size), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [((35, 33), 0.5, (17, 16)), ((33, 35), 0.75, (24, 26)), ((31, 34), 0.25, (7, 8)), ((33, 32), 1.5, (49, 48))],
)
def test_sides_of_a_scaled_image_are_rounded_down(
    size: tuple[int, int], scale: float, expected: tuple[int, int]
) -> None:
    """As PyTorch scales, for which 0.75 * 33 = 24.75 pixels are 24."""
    seen = []
    encoder = untrained({"layer1": [scale]})
    encoder.extractor.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    images = torch.zeros(1, 3, *size)
    encoder(images)
    assert seen == [expected]
    assert F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=True).shape[2:] == expected


def test_vision_transformer_levels_are_timms_intermediates() -> None:
    encoder = untrained({"blocks.3": [1.0], "blocks.1": [1.0]}, "vit_tiny_patch16_224")
    images = torch.randn(1, 3, 64, 48)
    model = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    unused = model.load_state_dict(encoder.extractor.feature_extractor.state_dict(), strict=False).missing_keys
    assert {name.split(".")[0] for name in unused} == {"blocks", "head"}  # those behind the last one that is used
    with torch.no_grad():
        expected = model.forward_intermediates(images, indices=[1, 3], norm=True, intermediates_only=True)
    for level, reference in zip(encoder(images), expected, strict=True):
        assert level.shape == (1, 192, 4, 3)
        torch.testing.assert_close(level, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [1, 3, 5, 7])
@pytest.mark.parametrize("grid", [(6, 5), (1, 4), (2, 2)])
def test_mean_of_a_neighborhood_is_scipys(side: int, grid: tuple[int, int]) -> None:
    """Of what lies within the map: sums of a padded map over the numbers of positions, at the border too."""
    features = torch.randn(2, 3, *grid).double()
    sums, counts = (
        np.stack([[uniform_filter(level, side, mode="constant") for level in image] for image in values])
        for values in (features.numpy(), np.ones(features.shape))
    )
    np.testing.assert_allclose(neighborhood_mean(features, side).numpy(), sums / counts, rtol=1e-12, atol=1e-12)


def test_mean_of_a_neighborhood_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]]).view(1, 1, 2, 3)
    expected = torch.tensor([[2.5, 4.0, 5.0], [2.5, 4.0, 5.0]]).view(1, 1, 2, 3)
    torch.testing.assert_close(neighborhood_mean(features, 3), expected)


@pytest.mark.parametrize(("backbone", "layer"), [("resnet18", "layer2"), ("vit_tiny_patch16_224", "blocks.1")])
def test_levels_are_means_of_neighborhoods(backbone: str, layer: str) -> None:
    """Of every level, in a grid of its own."""
    plain = untrained({layer: [1.0, 0.5]}, backbone)
    encoder = PyramidEncoder(backbone, {layer: [1.0, 0.5]}, pre_trained=False, neighborhood=3)
    encoder.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 96)
    for own, level in zip(plain(images), encoder(images), strict=True):
        rows = []
        for y in range(own.shape[2]):
            near = own[:, :, max(0, y - 1) : y + 2]
            rows.append(
                torch.stack([near[..., max(0, x - 1) : x + 2].mean(dim=(2, 3)) for x in range(own.shape[3])], dim=-1)
            )
        torch.testing.assert_close(level, torch.stack(rows, dim=2), rtol=1e-4, atol=1e-5)
        assert (level - own).abs().max() > 1e-3


@pytest.mark.parametrize("side", [2, 0, -1, -3, 4])
def test_neighborhood_without_a_middle(side: int) -> None:
    with pytest.raises(ValueError, match=f"expected neighborhood to be odd, got {side}"):
        PyramidEncoder("resnet18", {"layer2": [1.0]}, pre_trained=False, neighborhood=side)


def test_tokens_have_no_neighborhood() -> None:
    with pytest.raises(ValueError, match="have no neighbours: expected neighborhood=1, got 3"):
        PyramidEncoder("vit_tiny_patch16_224", {"blocks.1": [1.0]}, pre_trained=False, neighborhood=3, tokens=True)


def test_training_leaves_the_backbone_frozen() -> None:
    encoder = untrained({"layer2": [1.0]})
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    assert any(name.endswith("running_mean") for name in before)
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    features = encoder(torch.randn(4, 3, 64, 64, requires_grad=True))[0]
    assert not features.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_available_layers_and_statistics() -> None:
    assert available_layers("resnet18") == RESNET_LAYERS
    assert available_layers("resnet18.a1_in1k") == RESNET_LAYERS
    assert image_statistics("resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert image_statistics("vit_tiny_patch16_224") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_unknown_backbone_names_similar_ones() -> None:
    for function in (lambda: untrained({"layer2": [1.0]}, "resnt18"), lambda: image_statistics("resnt18")):
        with pytest.raises(ValueError, match=r"timm has no model 'resnt18'.*resnet18.*list_models"):
            function()


def test_unknown_layer_names_all_layers() -> None:
    with pytest.raises(ValueError, match=f"resnet18 has no layer 'layer9'. Available: {', '.join(RESNET_LAYERS)}"):
        untrained({"layer2": [1.0], "layer9": [1.0]})


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({}, "levels is empty: expected scales by layer, such as "),
        ({"layer2": []}, "levels has no scale for layer2: expected at least one"),
        ({"layer1": [1.0], "layer2": [1.0, 0.0]}, r"expected 0 < scale of layer2 < inf, got 0\.0\."),
        ({"layer2": [-0.5]}, r"expected 0 < scale of layer2 < inf, got -0\.5\."),
        ({"layer2": [float("nan")]}, "expected 0 < scale of layer2 < inf, got nan"),
        ({"layer2": [float("inf")]}, "expected 0 < scale of layer2 < inf, got inf"),
        ({"layer2": [0.5, 1.0, 1]}, r"repeats a scale of layer2: expected every scale once, got \[0\.5, 1\.0, 1\]\."),
    ],
)
def test_levels_out_of_range(levels: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        untrained(levels)


def from_file(path: Path) -> PyramidEncoder:
    """An encoder up to layer2."""
    return PyramidEncoder("resnet18", {"layer2": [1.0]}, backbone_weights=path)


def needed(name: str) -> bool:
    """Whether a tensor lies before layer3."""
    return name.startswith(("conv1", "bn1", "layer1", "layer2"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [lambda _: True, needed])
def test_weights_come_from_the_file(
    tmp_path: Path, state: dict[str, torch.Tensor], suffix: str, keep: Callable[[str], bool]
) -> None:
    """A file of the whole network, or of no more than is needed."""
    path = tmp_path / f"weights{suffix}"
    kept = {name: tensor for name, tensor in state.items() if keep(name)}
    (save_file if suffix == ".safetensors" else torch.save)(kept, path)
    plain = timm.create_model("resnet18")
    plain.load_state_dict(state)
    plain.eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = plain.layer2(plain.layer1(plain.maxpool(plain.act1(plain.bn1(plain.conv1(images))))))
    torch.testing.assert_close(from_file(path)(images)[0], expected)


def test_file_of_a_backbone_whose_stages_timm_renames(tmp_path: Path) -> None:
    """timm calls ``stages.0`` of a ConvNeXt ``stages_0`` when it is cut."""
    torch.save(timm.create_model("convnext_atto").state_dict(), tmp_path / "weights.pth")
    encoder = PyramidEncoder("convnext_atto", {"stages.1": [1.0]}, backbone_weights=tmp_path / "weights.pth")
    plain = timm.create_model("convnext_atto").eval()
    plain.load_state_dict(torch.load(tmp_path / "weights.pth"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = plain.stages[1](plain.stages[0](plain.stem(images)))
    torch.testing.assert_close(encoder(images)[0], expected, rtol=1e-4, atol=1e-5)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"backbone_weights: no file .*nowhere.pth. Expected a .safetensors"):
        from_file(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_garbage_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"backbone_weights: .*{name} cannot be read as a .safetensors or .pth"):
        from_file(tmp_path / name)


def test_missing_tensor(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    del state["layer2.0.conv1.weight"]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"lacks 1 of \d+ required tensors, such as layer2.0.conv1.weight"):
        from_file(tmp_path / "weights.safetensors")


def test_file_cut_before_the_layer(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file({name: state[name] for name in state if not name.startswith("layer2")}, tmp_path / "cut.safetensors")
    with pytest.raises(
        ValueError, match=r"lacks .*layer2.*Is the file for another backbone, or truncated before the last"
    ):
        from_file(tmp_path / "cut.safetensors")


def test_wrong_shape(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"conv1.weight of shape \(64, 1, 7, 7\), expected \(64, 3, 7, 7\)"):
        from_file(tmp_path / "weights.safetensors")


def test_numbers_that_are_not_finite(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    state["layer1.0.conv1.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(
        ValueError, match=r"weights.safetensors has NaN or infinite values in layer1.0.conv1.weight. Use an int"
    ):
        from_file(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("error", [URLError("no route"), OSError("no route"), ConnectionError("no route")])
def test_failed_download_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    create = timm.create_model

    def offline(*args: object, pretrained: bool = False, **kwargs: object) -> torch.nn.Module:
        if pretrained:
            raise error
        return create(*args, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RuntimeError, match=r"resnet18 could not be downloaded \(.*no route.*backbone_weights=") as info:
        PyramidEncoder("resnet18", {"layer2": [1.0]})
    assert info.value.__cause__ is error


def test_a_given_file_makes_no_download(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    create = timm.create_model
    asked = []

    def recorded(*args: object, pretrained: bool = False, **kwargs: object) -> torch.nn.Module:
        asked.append(pretrained)
        return create(*args, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", recorded)
    from_file(tmp_path / "weights.safetensors")
    assert asked
    assert not any(asked)

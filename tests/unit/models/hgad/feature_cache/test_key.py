# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Features are found again where nothing that they depend on has changed, and only there."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_hgad.models.hgad.feature_cache import key
from anomalib_hgad.models.hgad.feature_cache.key import content_key


class Images:
    """What the key asks of a dataset."""

    def __init__(self, antialias: bool = True) -> None:
        self.augmentations = Resize((32, 32), antialias=antialias)


class OtherImages(Images):
    """Reads the same files in another way."""


class Encoder(nn.Module):
    """What the key asks of an encoder, with a weight and a running statistic."""

    def __init__(self, weight: float = 1.0, mean: float = 0.0, mean_type: Any = torch.float32, **changes: Any) -> None:
        super().__init__()
        levels = {1.0: ["layer2"], 0.5: ["layer2"]}
        setting = {"backbone": "resnet18", "levels": levels, "neighborhood": 1, "tokens": False} | changes
        self.backbone = setting["backbone"]
        self.names_of_scales = setting["levels"]
        self.neighborhood = setting["neighborhood"]
        self.tokens = setting["tokens"]
        self.weight = nn.Parameter(torch.tensor([3.0, weight]))
        self.register_buffer("mean", torch.tensor([mean], dtype=mean_type))


def normalise(std: float = 0.2) -> Compose:
    return Compose([Normalize([0.5] * 3, [std] * 3)])


def key_of(**changes: Any) -> str:
    """Key of a setting."""
    setting = {
        "datasets": [Images(), Images()],
        "digests": ["aa", "bb", "cc"],
        "encoder": Encoder(),
        "transform": normalise(),
        "precision": "32-true",
    }
    return content_key(**setting | changes)


def test_equal_settings_have_equal_keys() -> None:
    assert key_of() == key_of()
    assert len(key_of()) == 32
    int(key_of(), 16)


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"datasets": [Images(), Images(antialias=False)]},
        lambda: {"datasets": [Images(), OtherImages()]},
        lambda: {"datasets": [Images()]},
        lambda: {"digests": ["aa", "cc", "bb"]},
        lambda: {"digests": ["aa", "bb"]},
        lambda: {"transform": normalise(0.3)},
        lambda: {"transform": None},
        lambda: {"precision": "bf16-mixed"},
        lambda: {"encoder": Encoder(levels={1.0: ["layer2"], 0.25: ["layer2"]})},
        lambda: {"encoder": Encoder(levels={1.0: ["layer1", "layer2"], 0.5: ["layer2"]})},
        lambda: {"encoder": Encoder(backbone="resnet34")},
        lambda: {"encoder": Encoder(tokens=True)},
        lambda: {"encoder": Encoder(neighborhood=3)},
        lambda: {"encoder": Encoder(weight=1.001)},
        lambda: {"encoder": Encoder(mean=0.001)},
        lambda: {"encoder": Encoder(mean_type=torch.int32)},
    ],
    ids=[
        *("augmentations", "reader", "number of datasets", "order of files", "number of files", "normalisation"),
        *("no transform", "precision", "scales", "layers", "backbone", "tokens", "neighborhood", "weight"),
        *("statistic", "type"),
    ],
)
def test_another_setting_has_another_key(change: Callable[[], dict[str, Any]]) -> None:
    assert key_of(**change()) != key_of()


@pytest.mark.parametrize("library", ["pillow", "timm", "torch", "torchvision"])
def test_another_version_of_a_library_has_another_key(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that decodes, transforms or computes."""
    before = key_of()
    distribution = importlib.metadata.distribution

    def newer(name: str) -> Any:
        return SimpleNamespace(version="1000.0") if name == library else distribution(name)

    monkeypatch.setattr(importlib.metadata, "distribution", newer)
    assert key_of() != before


def test_another_format_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of()
    monkeypatch.setattr(key, "CACHE_FORMAT", key.CACHE_FORMAT + 1)
    assert key_of() != before

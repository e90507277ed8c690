# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Every model of anomalib on MultiClass, and the table of docs/how-to/data.md that says which do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anomalib.models
import pytest
import timm
import torch
import torchvision
from anomalib.models import AnomalibModule, list_models
from anomalib.models.image.csflow import torch_model as csflow
from anomalib.models.image.dsr import lightning_model as dsr
from anomalib.models.image.dsr.torch_model import DiscreteLatentModel
from anomalib.models.image.efficient_ad import lightning_model as efficient_ad
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
from anomalib.pre_processing import PreProcessor
from anomalib.utils.path import convert_to_snake_case
from torchvision.transforms.v2 import Resize

from anomalib_hgad import MultiClass
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.paths import ROOT

RESNET: dict[str, Any] = {"backbone": "resnet18", "pre_trained": False}

SETTINGS: dict[str, dict[str, Any]] = {
    "AnomalyDINO": {"encoder_name": "vit_small_patch14_dinov2"},
    "Cfa": {"backbone": "resnet18"},
    "Cflow": RESNET | {"layers": ("layer3",), "coupling_blocks": 1, "fiber_batch_size": 16},
    "Csflow": {"cross_conv_hidden_channels": 8, "n_coupling_blocks": 1},
    "Dfkde": RESNET | {"n_pca_components": 2},
    "Dfm": RESNET,
    "Dinomaly": {"encoder_name": "vit_small_patch14_dinov2"},
    "Draem": {"dtd_dir": "textures"},
    "Dsr": {},
    "EfficientAd": {"imagenet_dir": "textures"},
    "Fastflow": RESNET | {"flow_steps": 1},
    "FoundAD": {"encoder_name": "dinov2_vit_small_14"},
    "Fre": RESNET | {"input_dim": 1024, "latent_dim": 8},
    "Ganomaly": {"batch_size": 4, "n_features": 4, "latent_vec_size": 4},
    "GeneralAD": {"backbone": "vit_small_patch14_dinov2", "layers": (2,), "hidden_dim": 8, "pre_trained": False},
    "Glass": {"backbone": "resnet18", "input_shape": (64, 64), "pretrain_embed_dim": 8, "target_embed_dim": 8},
    "InpFormer": {"encoder_name": "vit_small_patch14_dinov2"},
    "L2BT": {},
    "MHPatchcore": {"backbone": "resnet18", "pre_trained": False},
    "Padim": RESNET | {"layers": ["layer1"], "n_features": 8},
    "Patchcore": RESNET | {"layers": ("layer1",), "coreset_sampling_ratio": 0.01},
    "Patchflow": {"pre_trained": False, "flow_feature_dim": 8, "flow_hidden_dim": 8},
    "Rad": {"backbone": "vit_small_patch16_dinov3", "pre_trained": False},
    "ReverseDistillation": RESNET,
    "Stfpm": {"layers": ("layer1",)},
    "SuperADD": {"backbone": "vit_small_patch16_dinov3", "patch_size": 64},
    "Supersimplenet": {"backbone": "resnet18"},
    "Uflow": {"backbone": "resnet18", "flow_steps": 1},
    "UniNet": {"student_backbone": "wide_resnet50_2"},
}
"""Small settings of the models that run here, most of them with random weights in the place of those they download."""

IMAGE_SIZES = {
    "AnomalyDINO": 56,
    "Csflow": 128,
    "Dinomaly": 56,
    "EfficientAd": 256,
    "FoundAD": 56,
    "GeneralAD": 56,
    "InpFormer": 56,
    "L2BT": 56,
    "Supersimplenet": 256,
}
"""Height and width of the images, where it is not 64; patches of 14 pixels need 56."""

BATCH_SIZES = {"EfficientAd": 1}
"""Training images in a batch, where it is not 4."""

LIGHT = ["Padim", "Patchcore"]
"""Models that are tried whenever all tests run."""

OTHER_MODELS = {"hgad", "uni_ad"}
"""Models of this package."""


def without_weights(create: Callable[..., Any]) -> Callable[..., Any]:
    """Builds a network as another function does, with random weights."""

    def random(*args: Any, pretrained: bool = False, weights: Any = None, **kwargs: Any) -> Any:
        del pretrained, weights
        return create(*args, **kwargs)

    return random


@pytest.fixture
def random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded; files that models read are there, with random content."""
    monkeypatch.setattr(timm, "create_model", without_weights(timm.create_model))
    for name in ("resnet18", "wide_resnet50_2"):
        monkeypatch.setattr(torchvision.models, name, without_weights(getattr(torchvision.models, name)))
    monkeypatch.setattr(csflow, "efficientnet_b5", without_weights(csflow.efficientnet_b5))
    monkeypatch.chdir(tmp_path)
    trees.write_image(tmp_path / "textures/stripes/0.png", size=(64, 64))
    folder = tmp_path / "weights"
    for module in (dsr, efficient_ad):
        monkeypatch.setattr(module, "get_pretrained_weights_dir", lambda: folder)
    networks = {
        "dsr/vq_model_pretrained_128_4096.pckl": DiscreteLatentModel(128, 2, 64, 4096, 128),
        "efficientad_pretrained_weights/pretrained_teacher_small.pth": SmallPatchDescriptionNetwork(384),
    }
    for file, network in networks.items():
        (folder / file).parent.mkdir(parents=True)
        torch.save(network.state_dict(), folder / file)


def models() -> list[Any]:
    return [
        pytest.param(name, marks=pytest.mark.slow if name in LIGHT else pytest.mark.nightly)
        for name in sorted(SETTINGS)
    ]


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize("name", models())
def test_model_trains_tests_and_predicts_on_two_classes(name: str, tmp_path: Path) -> None:
    size = IMAGE_SIZES.get(name, 64)
    for kind in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "data" / kind, size=(64, 64))
    data = MultiClass(root=tmp_path / "data", num_workers=0, train_batch_size=BATCH_SIZES.get(name, 4))
    pre_processor = PreProcessor(transform=Resize((size, size)))
    model: AnomalibModule = getattr(anomalib.models, name)(
        **SETTINGS[name], pre_processor=pre_processor, visualizer=False
    )
    run = engine(tmp_path / "results", **{"max_steps": 4} if name == "EfficientAd" else {})
    run.fit(model, datamodule=data)
    (figures,) = run.test(model, datamodule=data)
    assert 0 <= figures["image_AUROC"] <= 1
    predictions = run.predict(model, datamodule=data)
    assert [name for batch in predictions for name in batch.class_name] == ["bolt"] * 4 + ["nut"] * 4
    assert torch.cat([batch.pred_score for batch in predictions]).isfinite().all()


def test_table_has_every_model_and_says_which_run() -> None:
    page = (ROOT / "docs/how-to/data.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (.*?) ?\|$", page, re.MULTILINE)
    assert {convert_to_snake_case(name) for name, *_ in rows} == list_models() - OTHER_MODELS
    assert {name for name, runs, _ in rows if runs == "yes"} == SETTINGS.keys()
    assert all(why for _, runs, why in rows if runs == "no")

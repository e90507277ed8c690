# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of what checkpoints say, and of those that cannot be read."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from anomalib.deploy import ExportType
from anomalib.metrics import AUPRO, Evaluator

from anomalib_hgad import Hgad, MultiClass, UniAd
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow


@pytest.fixture(params=["Hgad", "UniAd"])
def model(request: pytest.FixtureRequest) -> Hgad | UniAd:
    return Hgad(**LIGHT) if request.param == "Hgad" else UniAd(**LIGHT_UNIAD)


@pytest.fixture
def checkpoint(model: Hgad | UniAd) -> dict[str, Any]:
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    return content


def test_classes_come_back() -> None:
    model, other = Hgad(**LIGHT), Hgad(**LIGHT)
    model.set_class_names(["bolt", "nut"])
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    other.on_load_checkpoint(content)
    assert other.class_names == ["bolt", "nut"]
    assert other.model.num_classes == 2


def test_versions_of_the_same_minor_release_are_read(model: Hgad | UniAd, checkpoint: dict[str, Any]) -> None:
    major, minor = version("anomalib").split(".")[:2]
    checkpoint["hgad_versions"]["anomalib"] = f"{major}.{minor}.999"
    model.on_load_checkpoint(checkpoint)


@pytest.mark.parametrize(("package", "other"), [("anomalib-hgad", "0.99.0"), ("anomalib", "1.2.0")])
def test_other_versions_are_named(model: Hgad | UniAd, checkpoint: dict[str, Any], package: str, other: str) -> None:
    checkpoint["hgad_versions"][package] = other
    message = f"made with .*{package} {other}.*; installed are .*{package} {version(package)}.*install the versions"
    with pytest.raises(ValueError, match=message):
        model.on_load_checkpoint(checkpoint)


def test_checkpoint_of_another_score_is_refused() -> None:
    """Its scale and thresholds would be those of other numbers."""
    trained = Hgad(**LIGHT | {"score": "product"})
    content: dict[str, Any] = {"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}
    trained.on_save_checkpoint(content)
    Hgad(**LIGHT | {"score": "product"}).on_load_checkpoint(content)
    with pytest.raises(ValueError, match=r"for score='product', the model has score='sum'\. Give it score='product'"):
        Hgad(**LIGHT).on_load_checkpoint(content)


def test_list_in_place_of_a_tuple_is_no_other_setting() -> None:
    fastflow = LIGHT | {"flow": "fastflow"}
    trained = Hgad(**fastflow | {"flow_arguments": {"coupling_blocks": 2, "kernel_sizes": [3, 1]}})
    content: dict[str, Any] = {"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}
    trained.on_save_checkpoint(content)
    other = Hgad(**fastflow | {"flow_arguments": {"coupling_blocks": 2, "kernel_sizes": (3, 1)}, "num_centers": 3})
    with pytest.raises(ValueError, match=r"Settings that differ: num_centers=None there and 3 here\. Give"):
        other.on_load_checkpoint(content)


def test_checkpoint_that_does_not_say_is_refused(model: Hgad | UniAd, checkpoint: dict[str, Any]) -> None:
    del checkpoint["hgad_versions"]
    with pytest.raises(ValueError, match="does not say that it is one"):
        model.on_load_checkpoint(checkpoint)


def test_checkpoint_that_says_half_is_refused(model: Hgad | UniAd, checkpoint: dict[str, Any]) -> None:
    del checkpoint["hgad_versions"]["anomalib-hgad"]
    with pytest.raises(ValueError, match=r"made with anomalib-hgad 0\.0 \(not said\) and anomalib 2"):
        model.on_load_checkpoint(checkpoint)


def test_checkpoint_of_another_model_is_refused(model: Hgad | UniAd) -> None:
    message = "this one is of another model" if isinstance(model, Hgad) else "this one .* may be of another model"
    with pytest.raises(ValueError, match=message):
        model.on_load_checkpoint({"state_dict": {}})


@pytest.mark.parametrize(("kind", "settings"), [(Hgad, LIGHT), (UniAd, LIGHT_UNIAD)])
def test_checkpoint_of_other_metrics_is_read(kind: type[Hgad | UniAd], settings: dict[str, Any]) -> None:
    """AUPRO has a constant among the weights, under its number among the metrics."""
    metrics = [AUPRO(fields=["anomaly_map", "gt_mask"])]
    trained, other = kind(**settings, evaluator=Evaluator(test_metrics=metrics)), kind(**settings)
    content: dict[str, Any] = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(content)
    assert content["state_dict"].keys() != other.state_dict().keys()
    other.on_load_checkpoint(content)
    other.load_state_dict(content["state_dict"])
    for name, weight in trained.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], weight, equal_nan=True, msg=name)


@pytest.mark.slow
def test_checkpoint_of_a_gpu_is_read_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And exports. The file says of its tensors that they were on a GPU."""
    # Other scores saturate on images that are as unlike the training's as noise is.
    settings = LIGHT | {"score": "standardized"}
    data = trees.mvtec_class(tmp_path / "data/bolt").parent
    run = engine(tmp_path / "results")
    model = Hgad(**settings)
    run.fit(model, datamodule=MultiClass(root=data, num_workers=0))
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    run.trainer.save_checkpoint(tmp_path / "gpu.ckpt")
    monkeypatch.undo()
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
            torch.load(tmp_path / "gpu.ckpt", weights_only=True)
    path = engine(tmp_path).export(
        Hgad(**settings), ExportType.ONNX, export_root=tmp_path, ckpt_path=tmp_path / "gpu.ckpt"
    )
    images = torch.rand(1, 3, 32, 32)
    outputs = onnxruntime.InferenceSession(path).run(["pred_score"], {"input": images.numpy()})
    assert outputs[0].item() == pytest.approx(model.eval().cpu()(images).pred_score.item(), abs=1e-4)

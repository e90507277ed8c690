# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Every family of flows through Engine: trained, tested, restored and exported, by the same core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType
from lightning.pytorch import Callback

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.deploy.export import NOVELTY_TENSOR
from tests.helpers.engines import engine
from tests.helpers.exports import from_openvino
from tests.helpers.light import LIGHT, LIGHT_FLOW_ARGUMENTS, LIGHT_VIT

FAMILIES: dict[str, dict[str, Any]] = {
    "fastflow": LIGHT | {"flow": "fastflow", "flow_arguments": LIGHT_FLOW_ARGUMENTS["fastflow"]},
    "fastflow of a ViT": LIGHT_VIT
    | {"flow": "fastflow", "flow_arguments": {"hidden_ratio": 0.16, "coupling_blocks": 2}},
    "linear": LIGHT | {"flow": "linear", "flow_arguments": None, "covariance": "full", "score": "contrast"},
    "semantic": LIGHT_VIT | {"flow": "semantic", "flow_arguments": LIGHT_FLOW_ARGUMENTS["semantic"]},
}


class Losses(Callback):
    """Losses of all steps."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.values.append(float(arguments[2]["loss"]))


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_trains_tests_and_exports_on_real_images(family: str, shared_data: Path, tmp_path: Path) -> None:
    """The likelihood rises; the exported model gives a real image PyTorch's score, and its map."""
    data = MultiClass(
        root=shared_data / "data", categories=["mvtec_hazelnut", "mvtec_transistor"], train_batch_size=8, num_workers=0
    )
    module = Hgad(**FAMILIES[family] | {"image_size": 64, "seed": 0, "visualizer": False, "lr": 2e-3})
    losses = Losses()
    run = engine(tmp_path, losses, max_epochs=2, check_val_every_n_epoch=1 if family == "linear" else 2)
    run.fit(module, datamodule=data)
    assert family == "linear" or np.mean(losses.values[-5:]) < np.mean(losses.values[:5])
    (results,) = run.test(module, datamodule=data)
    assert 0 <= results["image_AUROC"] <= 1

    restored = Hgad.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path).eval()
    path = sorted((shared_data / "data/mvtec_hazelnut/test").rglob("*.png"))[0]
    image = read_image(path, as_tensor=True).unsqueeze(0)
    with torch.no_grad():
        resized = restored.pre_processor.transform(image)
        expected = restored.post_processor(restored.model(resized))
        novelty = restored.model.predict(resized)[0].novelty.numpy()
    outputs = from_openvino(restored.to_openvino(tmp_path / "openvino"))(image.numpy())  # goes through ONNX
    np.testing.assert_allclose(outputs[NOVELTY_TENSOR], novelty, rtol=1e-3, atol=1e-3)
    for name, value in expected._asdict().items():
        if name == "pred_mask":  # anomalib's threshold is the score of a pixel, which rounding puts on either side
            sure = (expected.anomaly_map - restored.post_processor.normalized_pixel_threshold).abs().numpy() > 2e-5
            assert sure.mean() > 0.95
            np.testing.assert_array_equal(outputs[name][sure], value.numpy()[sure])
        else:
            np.testing.assert_allclose(outputs[name], value.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
    if family == "fastflow":
        small = restored.to_openvino(tmp_path / "int8", compression_type=CompressionType.INT8)
        assert from_openvino(small)(image.numpy())["pred_score"] == pytest.approx(expected.pred_score.item(), abs=0.1)
    if family == "semantic":
        assert np.ptp(outputs["anomaly_map"]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LIGHT | {"flow": "semantic", "flow_arguments": None}, "test_resnet has no class token"),
        (
            LIGHT_VIT | {"flow": "semantic", "backbone": "cait_xxs24_224"},
            "cait_xxs24_224 has no class token in addition",
        ),
        (
            LIGHT_VIT | {"flow": "fastflow", "image_size": 40},
            "patches of 16 pixels: expected image_size=.40, 40. times",
        ),
        (
            LIGHT_VIT | {"backbone": "cait_xxs24_224"},
            r"cait_xxs24_224 does not accept image_size=\(32, 32\) at",
        ),
        ({"flow": "glow"}, "flow to be one of 'cflow', 'fastflow', 'semantic', 'linear'; got 'glow'"),
    ],
)
def test_backbones_and_flows_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hgad(**LIGHT | {"image_size": 64, "flow_arguments": None} | settings)

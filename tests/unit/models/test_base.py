# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images in memory are scored as those of a test or prediction are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Normalize, Resize

from anomalib_hgad import Hgad, MultiClass, UniAd
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

CLOSED_FORM = LIGHT | {"flow": "linear", "flow_arguments": None, "covariance": "full", "score": "contrast"}
NORMALIZE = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
SIDE = Compose([Resize(40, antialias=True), CenterCrop(32), NORMALIZE])
CUBIC = Compose([Resize((32, 32), InterpolationMode.BICUBIC, antialias=True), NORMALIZE])

BUILDS: dict[str, tuple[type[Hgad | UniAd], dict[str, Any]]] = {
    "closed form": (Hgad, CLOSED_FORM),
    "trained": (Hgad, LIGHT),
    "UniAD": (UniAd, LIGHT_UNIAD),
    "one side resized": (Hgad, CLOSED_FORM | {"pre_processor": PreProcessor(SIDE)}),
    "bicubic": (UniAd, LIGHT_UNIAD | {"pre_processor": PreProcessor(CUBIC)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILDS))
def test_images_in_memory_have_the_scores_of_a_prediction(name: str, tmp_path: Path) -> None:
    """Just trained, when dropout and noise are on, and loaded; images are made much smaller, so antialiasing counts."""
    kind, settings = BUILDS[name]
    root = trees.mvtec_class(tmp_path / "data/bolt", size=(120, 90)).parent
    model, run = kind(**settings, seed=0, visualizer=False), engine(tmp_path)
    run.fit(model, datamodule=MultiClass(root=root, num_workers=0))
    loaded = kind.load_from_checkpoint(run.best_model_path)
    assert model.training
    assert loaded.training
    in_training = {part for part, module in model.named_modules() if module.training}
    paths = sorted((root / "bolt/test").rglob("*.png"))
    in_memory = [[each(read_image(path, as_tensor=True).unsqueeze(0)) for path in paths] for each in (model, loaded)]
    assert {part for part, module in model.named_modules() if module.training} == in_training
    predictions = engine(tmp_path).predict(model, data_path=root / "bolt/test")
    assert [path for batch in predictions for path in batch.image_path] == [str(path) for path in paths]
    for predicted, *scored in zip(predictions, *in_memory, strict=True):
        for batch in scored:
            torch.testing.assert_close(batch.pred_score, predicted.pred_score, rtol=0, atol=1e-5)
            torch.testing.assert_close(batch.anomaly_map.squeeze(), predicted.anomaly_map.squeeze(), rtol=0, atol=1e-4)
            assert batch.pred_label.item() == predicted.pred_label.item()


@pytest.mark.parametrize(
    "images", [torch.rand(3, 32, 32), torch.rand(2, 1, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)]
)
def test_other_tensors_are_named(images: torch.Tensor) -> None:
    message = r"shape \(B, 3, height, width\), got torch\.(float32|uint8) of shape \("
    for model in (Hgad(**LIGHT), UniAd(**LIGHT_UNIAD)):
        with pytest.raises(ValueError, match=message):
            model(images)


@pytest.mark.parametrize("transform", [SIDE, CUBIC])
def test_resizing_that_no_graph_has_is_not_exported(transform: Compose, tmp_path: Path) -> None:
    """anomalib's export would leave the antialiasing out without a word."""
    model = Hgad(**LIGHT, pre_processor=PreProcessor(transform))
    model.set_class_names(["bolt"])
    with pytest.raises(ValueError, match=r"to a height and a width: .* got Resize\(size=\["):
        model.to_onnx(tmp_path, input_size=(64, 64))

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A flow that is not trained: one pass over the training images, by anomalib's engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from anomalib_hgad import Hgad, MultiClass
from tests.helpers import trees
from tests.helpers.engines import all_figures, engine
from tests.helpers.light import LIGHT

pytestmark = pytest.mark.slow

CLASSES = ["bolt", "nut"]
CLOSED_FORM = {
    "flow": "linear",
    "flow_arguments": None,
    "covariance": "full",
    "score": "standardized",
    "levels": {"layer1": [1.0, 0.5]},
    "seed": 0,
}


def closed_form(**settings: Any) -> Hgad:
    return Hgad(**LIGHT | CLOSED_FORM | settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("closed_form") / "plant"
    for name in CLASSES:
        trees.mvtec_class(root / name, train=12, good=6, bad=6)
    for file in (root / "nut").glob("t*/*/*.png"):  # darker than the bolts, for something to tell them apart
        Image.fromarray(np.array(Image.open(file)) // 2).save(file)
    return root


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hgad, Any, dict[str, float]]:
    model, run = closed_form(), engine(tmp_path_factory.mktemp("run"), max_epochs=5, check_val_every_n_epoch=5)
    run.train(model, datamodule=MultiClass(root=data, train_batch_size=4, num_workers=0))
    return model, run, all_figures(run)


def numpy_gaussian(model: Hgad, data: Path, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and covariance of the features of a class's images but the one held out, level by level."""
    held_out = {Path(path) for path in model.training_data.held_out.samples["image_path"]}
    files = [file.resolve() for file in sorted((data / name / "train/good").iterdir())]
    images = torch.stack([pil_to_tensor(Image.open(file)) / 255 for file in files if file not in held_out])
    features = model.model.encoder(model.pre_processor.transform(images))
    rows = [level.double().permute(0, 2, 3, 1).flatten(0, 2).numpy() for level in features]
    return [(level.mean(axis=0), np.cov(level.T, bias=True)) for level in rows]


def test_gaussians_are_those_of_the_features(trained: Any, data: Path) -> None:
    """In the features' own space: the centre unwhitened, L^-1 W in place of L^-1."""
    model, run, _ = trained
    assert run.trainer.current_epoch == 1, "one pass is enough"
    assert not model.post_processor.image_max.isnan(), "and it was validated"
    for index, name in enumerate(CLASSES):
        for level, (mean, covariance) in enumerate(numpy_gaussian(model, data, name)):
            flow, prior = model.model.flows[level], model.model.priors[level]
            center = flow.unwhiten(prior.class_centers[index : index + 1].detach())[0]
            np.testing.assert_allclose(center.numpy(), mean, rtol=1e-3, atol=1e-3)
            whitening = flow.whitening.double().numpy()
            latent = whitening @ covariance @ whitening.T
            latent += 0.03 * np.trace(latent) / len(latent) * np.eye(len(latent))
            precision = prior.class_whitening[index].double().numpy()
            np.testing.assert_allclose(precision @ latent @ precision.T, np.eye(len(latent)), atol=2e-2)


def test_defects_are_found_and_classes_told(trained: Any) -> None:
    _, _, metrics = trained
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.7
    assert metrics["ClassAccuracy"] == 1.0


def test_checkpoint_predicts_the_same(trained: Any, data: Path, tmp_path: Path) -> None:
    model, run, _ = trained
    loaded = Hgad.load_from_checkpoint(run.best_model_path)
    folder = data / "nut/test/crack"
    expected, actual = (
        engine(tmp_path).predict(one, data_path=folder, return_predictions=True)[0] for one in (model, loaded)
    )
    assert torch.equal(actual.raw_score, expected.raw_score)
    assert set(actual.pred_class_name) == {"nut"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_centers": 3}, "expected num_centers=1, got 3"),
        ({"whiten": False}, "expected whiten=True and another prior than 'fixed_centers', got whiten=False"),
        ({"prior": "fixed_centers"}, "got whiten=True and prior='fixed_centers'"),
        ({"covariance": "diagonal"}, "Expected covariance to be one of 'identity', 'full'"),
        ({"flow_arguments": {"coupling_blocks": 2}}, "'linear' has no option coupling_blocks. It has: none"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        closed_form(**settings)

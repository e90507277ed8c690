# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Settings of a trainer that do not go with the models are refused before the first image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anomalib.data import MVTecAD
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)

from anomalib_hgad import Hgad, MultiClass, UniAd
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

CLOSED_FORM = LIGHT | {"flow": "linear", "flow_arguments": None, "covariance": "full", "score": "contrast"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MultiClass:
    root = tmp_path_factory.mktemp("data")
    for name in ("bolt", "nut"):
        trees.mvtec_class(root / name)
    return MultiClass(root=root, train_batch_size=4, num_workers=0)


@pytest.fixture(scope="module")
def models() -> list[Hgad | UniAd]:
    return [Hgad(**CLOSED_FORM), Hgad(**LIGHT), UniAd(**LIGHT_UNIAD)]


@pytest.mark.parametrize("precision", ["64-true", "16-true", "bf16-true", 64])
def test_precision_that_features_do_not_come_in(
    precision: str | int, data: MultiClass, models: list[Hgad | UniAd], tmp_path: Path
) -> None:
    """In a training and a prediction alike. The precisions that are named are those that a training works in."""
    message = rf"expected trainer\.precision to be one of '32-true', .*, got '{precision}"
    for model in models:
        run = engine(tmp_path, precision=precision)
        for use in (run.fit, run.predict):
            with pytest.raises(ValueError, match=message):
                use(model, datamodule=data)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_precisions_that_train(precision: str, data: MultiClass, tmp_path: Path) -> None:
    model = UniAd(**LIGHT_UNIAD, visualizer=False)
    engine(tmp_path, precision=precision).fit(model, datamodule=data)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "callback",
    [
        LearningRateFinder(),
        BatchSizeFinder(),
        StochasticWeightAveraging(1e-3),
        WeightAveraging(),
        EMAWeightAveraging(),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_callback_that_a_training_goes_wrong_with(
    callback: Callback, data: MultiClass, models: list[Hgad | UniAd], tmp_path: Path
) -> None:
    for model in models:
        with pytest.raises(
            ValueError, match=rf"{type(callback).__name__} does not work with this model: it .* Leave it"
        ):
            engine(tmp_path, callback).fit(model, datamodule=data)


@pytest.mark.parametrize(
    ("name", "value"),
    [("train_batch_size", 0), ("train_batch_size", 2.5), ("eval_batch_size", -1), ("num_workers", -1)],
)
def test_batches_without_images(name: str, value: float, models: list[Hgad | UniAd], tmp_path: Path) -> None:
    of_anomalib = MVTecAD(tmp_path, "bolt", **{name: value})
    trees.mvtec_class(tmp_path / "data/bolt", train=1, good=1, bad=1)
    several = MultiClass(root=tmp_path / "data", **{name: value})
    for model in models:
        for datamodule in (of_anomalib, several):
            with pytest.raises(
                ValueError, match=rf"data\.{name} is out of range: expected .* at least [01], got {value}"
            ):
                engine(tmp_path).fit(model, datamodule=datamodule)


@pytest.mark.parametrize("kind", [Hgad, UniAd])
@pytest.mark.parametrize(
    "settings", [{"backbone": None}, {"image_size": (32, 32, 3)}, {"image_size": 32.0}, {"lr": "fast"}, {"seed": 1.5}]
)
def test_settings_of_another_type(kind: type[Hgad | UniAd], settings: dict[str, object]) -> None:
    (name,) = settings
    with pytest.raises(TypeError, match=f"^{name} has the wrong type: expected .*, got "):
        kind(**settings)


def test_scales_that_are_no_lists() -> None:
    with pytest.raises(
        TypeError, match=r"levels has the wrong type: expected dict\[str, list\[float\]\], got \{'layer2'"
    ):
        Hgad(levels={"layer2": 1.0})

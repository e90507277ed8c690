# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the training of HGAD: its classes, its steps, and what the steps leave alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.data.batch import FeatureBatch
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

CLOSED_FORM = LIGHT | {"flow": "linear", "flow_arguments": None, "covariance": "full", "score": "contrast"}


def test_single_gaussian_stays_when_its_classes_are_named_again() -> None:
    """As before the test of a resumed training; it has one Gaussian, however many classes there are."""
    model = Hgad(**LIGHT, prior="single_gaussian")
    model.set_class_names(["bolt", "nut"])
    priors, calibration = model.model.priors, model.model.calibration
    model.set_class_names(["bolt", "nut"])
    assert model.model.priors is priors
    assert model.model.calibration is calibration


@pytest.mark.slow
def test_closed_form_is_fitted_with_a_gradient_scaler(tmp_path: Path) -> None:
    """That of 16-mixed, which needs a GPU in a training of one's own."""
    root = trees.mvtec_class(tmp_path / "data/bolt", train=6).parent
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    model = Hgad(**CLOSED_FORM, visualizer=False)
    run = engine(tmp_path, plugins=[precision])
    run.fit(model, datamodule=MultiClass(root=root, train_batch_size=4, num_workers=0))
    assert run.trainer.global_step == 2
    assert model.model.whitened
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_closed_form_counts_an_image_once_that_a_process_is_given_again() -> None:
    """Of five images two processes get three each: the last one of the second process is the first one again."""
    features = torch.rand(6, 48, 4, 4)
    counts = []
    for rank in range(2):
        model = Hgad(**CLOSED_FORM | {"levels": {"layer2": [1.0]}})
        model.set_class_names(["bolt"])
        model.model.start_moments()
        sampler = DistributedSampler(range(5), num_replicas=2, rank=rank)
        model._trainer = SimpleNamespace(train_dataloader=DataLoader(range(5), 2, sampler=sampler))
        for index, rows in enumerate((slice(0, 2), slice(2, 3))):
            batch = FeatureBatch(features=[features[rows]], class_index=torch.zeros(len(features[rows])).long())
            model.training_step(batch, index)
        counts.append(model.model._moments[0].gaussians().counts.item() / 16)
    assert counts == [3, 2]


@pytest.mark.slow
def test_model_is_not_trained_again_without_one_of_its_classes(tmp_path: Path) -> None:
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "data" / name)
    model = Hgad(**CLOSED_FORM, visualizer=False)
    engine(tmp_path).fit(model, datamodule=MultiClass(root=tmp_path / "data", num_workers=0))
    only_nut = MultiClass(root=tmp_path / "data", categories=["nut"], num_workers=0)
    with pytest.raises(ValueError, match="the training data has no bolt"):
        engine(tmp_path).fit(model, datamodule=only_nut)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), [(Hgad, LIGHT), (UniAd, LIGHT_UNIAD)], ids=["Hgad", "UniAd"])
def test_training_is_resumed_with_the_learning_rate_of_the_model(
    kind: type[Hgad | UniAd], settings: dict[str, object], tmp_path: Path
) -> None:
    trees.mvtec_class(tmp_path / "data/bolt")
    data = MultiClass(root=tmp_path / "data", num_workers=0)
    began = engine(tmp_path)
    began.fit(kind(**settings, visualizer=False), datamodule=data)
    resumed = engine(tmp_path, max_epochs=2)
    resumed.fit(kind(**settings, visualizer=False, lr=0.03), datamodule=data, ckpt_path=began.best_model_path)
    assert resumed.trainer.current_epoch == 2
    assert all(group["initial_lr"] == 0.03 for group in resumed.trainer.optimizers[0].param_groups)
    assert set(resumed.trainer.lr_scheduler_configs[0].scheduler.base_lrs) == {0.03}

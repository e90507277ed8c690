# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the criterion that states of a training are compared by."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.data.synthetic_anomalies import SyntheticAnomalies
from anomalib_hgad.models.hgad import criterion
from anomalib_hgad.models.hgad.criterion import StateFigures, SyntheticCriterion, spread_rows
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT


def of_classes(*classes: int) -> Any:
    return SimpleNamespace(samples=pd.DataFrame({"class_index": classes}, index=range(100, 100 + len(classes))))


def test_rows_are_spread_over_the_classes() -> None:
    images = of_classes(0, 0, 0, 0, 1, 2, 2)
    assert spread_rows(images, 5) == [0, 1, 4, 5, 6]
    assert spread_rows(images, 3) == [0, 4, 5]
    assert spread_rows(images, 9) == list(range(7))


def test_criterion_is_the_mean_of_what_is_defined() -> None:
    assert StateFigures(1, 0.5, 0.75, 9.0).criterion == 0.625
    assert StateFigures(1, 0.5, math.nan, 9.0).criterion == 0.5


def test_scores_that_are_no_numbers_are_the_worst() -> None:
    assert criterion._auroc(np.array([False, True]), np.array([0.0, np.inf])) == 0
    assert math.isnan(criterion._auroc(np.array([False, False]), np.array([0.0, 1.0])))


def pairs_in_order(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """AUROC by its meaning: share of the pairs with the anomalous one above the normal one; ties count half."""
    difference = anomalous[:, None] - normal[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


class Judge(Callback):
    """Judges a state after an epoch, by the criterion and by hand."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        images = pl_module.training_data.held_out_images
        self.random_state = torch.get_rng_state()
        self.figures = SyntheticCriterion(trainer, pl_module, images).figures(trainer, pl_module, 1.5)
        assert torch.equal(torch.get_rng_state(), self.random_state)
        model = pl_module.model.eval()
        dataset = SyntheticAnomalies(images, list(range(len(images))))
        aurocs, likelihoods = [], []
        for index in range(model.num_classes):
            items = [item for item in map(dataset.__getitem__, range(len(dataset))) if item.class_index == index]
            truth = np.array([bool(item.gt_label) for item in items])
            batch = pl_module.pre_processor.transform(torch.stack([item.image for item in items]))
            classes = torch.full((len(items),), index)
            levels = model.level_scores(model.read(model.encoder(batch)), classes)
            scores, maps = (part.numpy() for part in model.raw_scores(levels, classes, (32, 32)))
            masks = np.stack([item.gt_mask.numpy() for item in items]).astype(bool)
            image_auroc = pairs_in_order(scores[~truth], scores[truth])
            aurocs.append((image_auroc, pairs_in_order(maps[:, 0][~masks], maps[:, 0][masks])))
            likelihoods += [
                [float(level.log_likelihood[row].mean()) for level in levels] for row in np.flatnonzero(~truth)
            ]
        self.expected = (*np.mean(aurocs, axis=0), np.mean(likelihoods))


@pytest.mark.slow
@pytest.mark.parametrize("score", ["standardized", "sum"])
def test_figures_are_those_by_hand(score: str, tmp_path: Path) -> None:
    for name, train in (("bolt", 12), ("nut", 8)):
        trees.mvtec_class(tmp_path / name, train=train)
    judge, settings = Judge(), {"covariance": "full", "calibration_share": 0.4, "seed": 0, "score": score}
    datamodule = MultiClass(root=tmp_path, train_batch_size=3, num_workers=0)
    engine(tmp_path / "run", judge).fit(Hgad(**LIGHT | settings), datamodule=datamodule)
    assert judge.figures.epoch == 1.5
    assert judge.figures[1:4] == pytest.approx(judge.expected, abs=1e-4)
    assert 0 < judge.figures.image_auroc <= 1

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether an image is of a product that the model was never trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_hgad.models.hgad import novelty
from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.calibration import NormalScores
from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT, NoveltyScale, typicality

RNG = np.random.default_rng(0)


def levels(*log_likelihoods: np.ndarray) -> list[LevelScores]:
    return [
        LevelScores(torch.from_numpy(level), torch.zeros(level.shape[:2], dtype=torch.float64), (1, level.shape[1]))
        for level in log_likelihoods
    ]


def scores(values: dict[int, list[float]]) -> NormalScores:
    """Images of classes whose positions all have one value."""
    result = NormalScores()
    for index, of_class in values.items():
        for value in of_class:
            result.add(levels(np.full((1, 3, 1), value)), torch.tensor([index]))
    return result


def test_typicality_against_numpy() -> None:
    fine, coarse = RNG.normal(size=(2, 9, 3)), RNG.normal(size=(2, 5, 3))
    expected = (np.median(fine, axis=1) + np.median(coarse, axis=1)) / 2
    assert np.allclose(typicality(levels(fine, coarse)), expected)


def test_a_defect_moves_it_less_than_another_product() -> None:
    normal = RNG.normal(size=(1, 101, 1))
    defect, other = normal.copy(), normal - 3
    defect[:, :20] -= 100
    typical, of_defect, of_other = (typicality(levels(values)).item() for values in (normal, defect, other))
    assert typical - of_defect < 1
    assert typical - of_other == pytest.approx(3)


def test_scale_by_hand() -> None:
    """Squares of 10 and 20 over 4 + 6 degrees of freedom are 3 in common, which counts as 5 images.

    So 9 and, as there are no more, 10 degrees tell the variances; Student's t is above 6.01 and 5.69 once in 10^4.
    """
    first, second = [0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 4.0, 4.0, 5.0, 7.0, 4.0]
    assert (np.var(first) * 5, np.var(second) * 7) == (10, 20)
    scale = NoveltyScale(2).double()
    scale.update(scores({0: [100.0]}), scores({0: first, 1: second}))
    assert torch.allclose(scale.location, torch.tensor([2.0, 4.0]).double())
    variances = np.array([(10 + 5 * 3) / 9 * (1 + 1 / 5), (20 + 5 * 3) / 11 * (1 + 1 / 7)])
    assert np.allclose(scale.margin.numpy(), np.array([6.01013, 5.69382]) * np.sqrt(variances), rtol=1e-5)
    novelty_of_image = scale(levels(np.full((1, 3, 2), 0.5)), torch.tensor([[1, 0]]))
    assert novelty_of_image.item() == pytest.approx((4 - 0.5) / scale.margin[1].item())


@pytest.mark.slow
@pytest.mark.parametrize("images_of_class", [2, 4, pytest.param(40, marks=pytest.mark.slow)])
def test_rate_of_false_unknowns_holds_for_few_images_and_many(
    monkeypatch: pytest.MonkeyPatch, images_of_class: int
) -> None:
    """Drawn numbers, and a rate that can be counted: 1000 times three classes, one new image of each."""
    monkeypatch.setattr(novelty, "FALSE_UNKNOWN_RATE", 0.02)
    rng = np.random.default_rng(3)
    called = []
    for _ in range(1000):
        typicalities = rng.normal(5, 2, size=(3, images_of_class + 1))
        scale = NoveltyScale(3).double()
        scale.update(NormalScores(), scores({k: list(row[1:]) for k, row in enumerate(typicalities)}))
        new = levels(np.repeat(typicalities[:, 0], 3).reshape(3, 3, 1))
        called += (scale(new, torch.arange(3).unsqueeze(-1)) > NOVELTY_LIMIT).tolist()
    assert np.mean(called) == pytest.approx(0.02, abs=0.008)  # three standard deviations of the count


def test_training_images_stand_in_for_held_out_ones() -> None:
    scale = NoveltyScale(3)
    scale.update(scores({0: [100.0], 1: [5.0]}), scores({0: [1.0, 3.0]}))
    assert scale.location.tolist() == [2.0, 5.0, 3.5]  # a class of nothing: the mean of the others


def test_single_images_call_nothing_unknown() -> None:
    scale = NoveltyScale(2)
    scale.update(NormalScores(), scores({0: [1.0], 1: [4.0]}))
    assert torch.isfinite(scale.margin).all()
    assert scale(levels(np.full((1, 3, 1), -1e5)), torch.tensor([[0]])).item() < NOVELTY_LIMIT


def test_images_that_are_all_alike_and_none_at_all() -> None:
    scale = NoveltyScale(1)
    scale.update(NormalScores(), NormalScores())
    assert (scale.location.item(), scale.margin.item()) == (0, 1)
    scale.update(scores({0: [2.0] * 11}), NormalScores())
    assert scale.margin.item() == pytest.approx(5.694e-3, rel=1e-4)
    assert torch.isfinite(scale(levels(np.full((1, 3, 1), 2.5)), torch.tensor([[0]]))).all()

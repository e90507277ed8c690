# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether an image is of a product that the model was never trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_hgad.models.hgad import novelty
from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.normal_scores import ClassValues
from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT, NoveltyScale


def levels(*typicalities: float) -> list[LevelScores]:
    """A level of images whose positions all have one value."""
    values = torch.tensor(typicalities, dtype=torch.float64).unsqueeze(-1).expand(-1, 3)
    return [LevelScores(values, torch.zeros_like(values), torch.zeros_like(values), (1, 3))]


def typicalities(num_classes: int, values: dict[int, list[float]]) -> ClassValues:
    """Of images, one by one."""
    result = ClassValues(num_classes, torch.device("cpu"))
    for index, of_class in values.items():
        for value in of_class:
            result.add(torch.tensor([[value]], dtype=torch.float64), torch.tensor([index]))
    return result


def test_scale_by_hand() -> None:
    """Squares of 10 and 20 over 4 + 6 degrees of freedom are 3 in common, which counts as 5 images.

    So 9 and, as there are no more, 10 degrees tell the variances; Student's t is above 6.01 and 5.69 once in 10^4.
    """
    first, second = [0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 4.0, 4.0, 5.0, 7.0, 4.0]
    assert (np.var(first) * 5, np.var(second) * 7) == (10, 20)
    scale = NoveltyScale(2).double()
    scale.update(typicalities(2, {0: first, 1: second}))
    assert torch.allclose(scale.location, torch.tensor([2.0, 4.0]).double())
    variances = np.array([(10 + 5 * 3) / 9 * (1 + 1 / 5), (20 + 5 * 3) / 11 * (1 + 1 / 7)])
    assert np.allclose(scale.deviation.numpy(), np.sqrt([(10 + 5 * 3) / 9, (20 + 5 * 3) / 11]))
    assert scale.images.tolist() == [5, 7]
    assert np.allclose(scale.margin.numpy(), np.array([6.01013, 5.69382]) * np.sqrt(variances), rtol=1e-5)
    novelties = scale(levels(0.5, 0.5), torch.tensor([1, 0])).tolist()
    assert novelties == pytest.approx([(4 - 0.5) / scale.margin[1].item(), (2 - 0.5) / scale.margin[0].item()])


@pytest.mark.slow
@pytest.mark.parametrize("images_of_class", [2, *(pytest.param(many, marks=pytest.mark.nightly) for many in (4, 40))])
def test_rate_of_false_unknowns_holds_for_few_images_and_many(
    monkeypatch: pytest.MonkeyPatch, images_of_class: int
) -> None:
    """Drawn numbers, and a rate that can be counted: 1000 times three classes, one new image of each."""
    monkeypatch.setattr(novelty, "FALSE_UNKNOWN_RATE", 0.02)
    rng = np.random.default_rng(3)
    called = []
    for _ in range(1000):
        values = rng.normal(5, 2, size=(3, images_of_class + 1))
        scale = NoveltyScale(3).double()
        scale.update(typicalities(3, {k: list(row[1:]) for k, row in enumerate(values)}))
        called += (scale(levels(*values[:, 0]), torch.arange(3)) > NOVELTY_LIMIT).tolist()
    assert np.mean(called) == pytest.approx(0.02, abs=0.008)  # three standard deviations of the count


def test_a_class_of_no_images_takes_the_mean_of_the_others() -> None:
    scale = NoveltyScale(3)
    scale.update(typicalities(3, {0: [1.0, 3.0], 1: [5.0]}))
    assert scale.location.tolist() == [2.0, 5.0, 3.5]
    assert (scale.margin > 0).all()


def test_single_images_call_nothing_unknown() -> None:
    scale = NoveltyScale(2)
    scale.update(typicalities(2, {0: [1.0], 1: [4.0]}))
    assert torch.isfinite(scale.margin).all()
    assert scale(levels(-1e5), torch.tensor([0])).item() < NOVELTY_LIMIT


def test_images_that_are_all_alike_and_none_at_all() -> None:
    scale = NoveltyScale(1)
    scale.update(typicalities(1, {}))
    assert (scale.location.item(), scale.margin.item()) == (0, 1)
    scale.update(typicalities(1, {0: [2.0] * 11}))
    assert scale.margin.item() == pytest.approx(5.694e-3, rel=1e-4)
    assert torch.isfinite(scale(levels(2.5), torch.tensor([0]))).all()

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the constants of the scores against NumPy, and of what they do to the scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from anomalib_hgad.models.hgad.anomaly_map import QUANTITIES, LevelScores
from anomalib_hgad.models.hgad.calibration import ScoreCalibration, location_and_spread, without_odd_ones
from anomalib_hgad.models.hgad.normal_scores import ClassValues, PositionScores

CPU = torch.device("cpu")
LEVELS = 2
POSITIONS = 5
LIMITS = torch.tensor([100.0, 1000.0])


def drawn(images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """a, c and e of the positions of two levels, shape (3, images, L, n), and the classes, in no order."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(len(QUANTITIES), images, LEVELS, POSITIONS))
    scores[2] = -np.abs(scores[2])
    return scores, rng.permutation(np.arange(images) % classes)


def position_scores(scores: np.ndarray, y: np.ndarray, classes: int, batch: int = 4) -> PositionScores:
    """Their moments, collected batch by batch."""
    result = PositionScores(classes, LEVELS, CPU)
    for start in range(0, len(y), batch):
        rows = slice(start, start + batch)
        levels = [
            LevelScores(*(torch.from_numpy(of_quantity[rows, level]) for of_quantity in scores), (1, POSITIONS))
            for level in range(LEVELS)
        ]
        result.add(levels, torch.from_numpy(y[rows]))
    return result


def class_values(values: list[list[float]]) -> ClassValues:
    """Of every class, a value each of some images."""
    result = ClassValues(len(values), CPU)
    for index, of_class in enumerate(values):
        result.add(torch.tensor(of_class, dtype=torch.float64).unsqueeze(-1), torch.full((len(of_class),), index))
    return result


def scores_of(values: list[list[float]]) -> list[torch.Tensor]:
    """Of every class, a score each of some images."""
    return [torch.tensor(of_class, dtype=torch.float64) for of_class in values]


def both(values: list[list[float]]) -> tuple[list[torch.Tensor], ClassValues]:
    """As scores of images, and as pixels."""
    return scores_of(values), class_values(values)


def spread_by_hand(scores: list[np.ndarray]) -> list[float]:
    """Variance over n + 5, with 5 images' worth of the relative variance that all classes have together."""
    relative = sum(((s - s.mean()) ** 2).sum() / s.mean() ** 2 for s in scores) / sum(len(s) - 1 for s in scores)
    return [np.sqrt((s.var() * len(s) + 5 * relative * s.mean() ** 2) / (len(s) + 5)) for s in scores]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_constants_of_positions_equal_numpy(batch: int, dtype: torch.dtype) -> None:
    """However the images are batched; as a training with precision="64-true" has them, too."""
    scores, y = drawn(30, 3)
    unseen_scores, unseen_y = scores[:, ::-1][:, :17] - 0.3, y[::-1][:17].copy()
    calibration = ScoreCalibration(3, LEVELS).to(dtype)
    calibration.set_positions(position_scores(scores, y, 3, batch), position_scores(unseen_scores, unseen_y, 3, batch))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    for k in range(3):
        of_class, of_unseen = scores[:, y == k], unseen_scores[:, unseen_y == k]
        for actual, expected in (
            (calibration.maximum, of_class.max(axis=(1, 3))),
            (calibration.mean, of_unseen.mean(axis=(1, 3))),
            (calibration.deviation, of_unseen.std(axis=(1, 3))),
        ):
            assert actual.dtype == dtype
            np.testing.assert_allclose(actual[k].numpy(), expected.T, rtol=tolerance, atol=tolerance)


def test_class_of_no_images_keeps_neutral_constants() -> None:
    scores, y = drawn(12, 3)
    present = y != 1
    calibration = ScoreCalibration(3, LEVELS)
    own = position_scores(scores[:, present], y[present], 3)
    calibration.set_positions(own, own)
    for name, neutral in (("maximum", 0), ("mean", 0), ("deviation", 1)):
        constants = getattr(calibration, name)
        assert (constants[1] == neutral).all()
        assert (constants[[0, 2]] != neutral).all()
    calibration.set_scale(*both([[3.0, 4.0], [], [5.0, 6.0]]), torch.tensor([7.0, math.nan, 8.0]))
    for name, neutral in (("location", 0), ("spread", 1), ("pixel_location", 0), ("pixel_spread", 1)):
        constants = getattr(calibration, name)
        assert constants[1].item() == neutral
        assert (constants[[0, 2]] != neutral).all()


def test_positions_that_are_all_alike_deviate_a_little() -> None:
    alike = position_scores(np.full((3, 4, LEVELS, POSITIONS), -2.0), np.zeros(4, dtype=np.int64), 1)
    calibration = ScoreCalibration(1, LEVELS)
    calibration.set_positions(alike, alike)
    torch.testing.assert_close(calibration.deviation, torch.full((1, LEVELS, 3), 1e-3))


def test_new_constants_replace_the_old() -> None:
    scores, y = drawn(12, 2)
    first, second = position_scores(scores, y, 2), position_scores(2 * scores - 7, y, 2)
    calibration, reference = ScoreCalibration(2, LEVELS), ScoreCalibration(2, LEVELS)
    calibration.set_positions(first, first)
    for each in (calibration, reference):
        each.set_positions(second, second)
    for name, constants in calibration.state_dict().items():
        assert torch.equal(constants, reference.state_dict()[name]), name


def test_constants_are_those_of_each_images_class() -> None:
    calibration = ScoreCalibration(3, LEVELS)
    for constants in (calibration.maximum, calibration.mean, calibration.deviation):
        constants.copy_(torch.randn(constants.shape))
    found = calibration.constants(torch.tensor([2, 0]))
    for actual, of_all in zip(found, (calibration.maximum, calibration.mean, calibration.deviation), strict=True):
        assert torch.equal(actual, torch.stack((of_all[2], of_all[0])))


def test_scores_and_maps_are_put_on_scales_of_their_own() -> None:
    """(S - location) / spread, by hand."""
    calibration = ScoreCalibration(2, 1)
    for name, values in (
        ("location", [1.0, 3.0]),
        ("spread", [0.5, 2.0]),
        ("pixel_location", [0.0, 2.0]),
        ("pixel_spread", [4.0, 0.1]),
    ):
        getattr(calibration, name).copy_(torch.tensor(values))
    score, anomaly_map = calibration(torch.tensor([5.0, 5.0]), torch.full((2, 1, 2, 2), 3.0), torch.tensor([1, 0]))
    torch.testing.assert_close(score, torch.tensor([1.0, 8.0]))
    torch.testing.assert_close(anomaly_map, torch.tensor([10.0, 0.75]).view(2, 1, 1, 1).expand(2, 1, 2, 2))


def test_scale_equals_numpy() -> None:
    """Image scores have mean and deviation; pixels their mean, and from it on the limit of their masks."""
    rng = np.random.default_rng(1)
    scores, pixels = ([rng.uniform(1, 3, size) * scale for size, scale in ((9, 1), (31, 40))] for _ in range(2))
    calibration = ScoreCalibration(2, LEVELS).double()
    calibration.set_scale(scores_of([list(s) for s in scores]), class_values([list(p) for p in pixels]), LIMITS)
    np.testing.assert_allclose(calibration.location.numpy(), [of_class.mean() for of_class in scores], rtol=1e-12)
    np.testing.assert_allclose(calibration.spread.numpy(), spread_by_hand(scores), rtol=1e-10)
    np.testing.assert_allclose(calibration.pixel_location.numpy(), [of_class.mean() for of_class in pixels], rtol=1e-12)
    limits = calibration.pixel_location + calibration.pixel_spread
    np.testing.assert_allclose(limits.numpy(), LIMITS.numpy(), rtol=1e-10)


@pytest.mark.parametrize(("limit", "expected"), [(9.0, 4.0), (6.0, 2.0), (-3.0, 2.0), (math.nan, 6.0)])
def test_limit_of_masks_is_at_least_a_deviation_above_the_mean(limit: float, expected: float) -> None:
    """Mean 5, deviation 2. Three deviations where nothing tells the limit."""
    calibration = ScoreCalibration(1, 1)
    calibration.set_scale(scores_of([[2.0]]), class_values([[3.0, 7.0]]), torch.tensor([limit]))
    assert calibration.pixel_location.item() == 5
    assert calibration.pixel_spread.item() == pytest.approx(expected)


@pytest.mark.parametrize(("limit", "expected"), [(3.0, 1e-3), (math.nan, 3e-3)])
def test_pixels_that_are_all_alike_have_a_positive_spread(limit: float, expected: float) -> None:
    calibration = ScoreCalibration(1, 1)
    calibration.set_scale(scores_of([[2.0]]), class_values([[3.0, 3.0]]), torch.tensor([limit]))
    assert calibration.pixel_location.item() == 3
    assert calibration.pixel_spread.item() == pytest.approx(expected)


def test_cleared_scale_leaves_scores_and_maps_as_they_are() -> None:
    calibration = ScoreCalibration(2, 1)
    calibration.set_scale(*both([[3.0, 4.0], [5.0]]), LIMITS)
    scores, maps = torch.rand(2), torch.rand(2, 1, 4, 4)
    changed = calibration(scores, maps, torch.arange(2))
    calibration.clear_scale()
    for same, other, expected in zip(calibration(scores, maps, torch.arange(2)), changed, (scores, maps), strict=True):
        assert torch.equal(same, expected)
        assert not torch.allclose(other, expected)


def test_auroc_within_a_class_stays_and_that_of_all_images_no_longer_suffers_from_the_scales() -> None:
    """Class 1 scores in hundreds what class 0 scores in ones."""
    rng = np.random.default_rng(0)
    y, label = np.arange(400) % 2, np.arange(400) // 2 % 2
    s = (rng.normal(size=400) + 5 + 2 * label) * np.where(y == 1, 100, 1)
    calibration = ScoreCalibration(2, 1).double()
    calibration.set_scale(*both([list(s[(y == k) & (label == 0)]) for k in range(2)]), LIMITS)
    scores = torch.from_numpy(s)
    scaled = calibration(scores, scores.view(-1, 1, 1, 1), torch.from_numpy(y))[0].numpy()
    of_classes = [roc_auc_score(label[y == k], s[y == k]) for k in range(2)]
    for k in range(2):
        assert roc_auc_score(label[y == k], scaled[y == k]) == pytest.approx(of_classes[k], abs=1e-12)
    assert roc_auc_score(label, s) < 0.8
    assert roc_auc_score(label, scaled) == pytest.approx(np.mean(of_classes), abs=0.03)
    for k in range(2):
        normal_scores = scaled[(y == k) & (label == 0)]
        assert normal_scores.mean() == pytest.approx(0, abs=1e-9)
        assert normal_scores.std() == pytest.approx(1, abs=0.05)


def test_location_and_spread_by_hand() -> None:
    """Squares 2, 0, 0 and means 2, 10, 4: the ratio squared is (2 / 4) / (1 + 3 + 0) = 1/8; 5 images' worth of it."""
    location, spread = location_and_spread(scores_of([[1.0, 3.0], [10.0] * 4, [4.0]]))
    assert location.tolist() == [2, 10, 4]
    expected = torch.tensor([(2 + 5 / 8 * 4) / 7, (5 / 8 * 100) / 9, (5 / 8 * 16) / 6]).double().sqrt()
    torch.testing.assert_close(spread, expected)


def centred(classes: int = 30, images: int = 6) -> list[torch.Tensor]:
    """Scores around 0, as those of a map of one value, with the standard deviation 1."""
    return list(torch.randn(classes, images, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def test_scores_around_0_have_spreads_that_their_locations_do_not_decide() -> None:
    """A location near 0 would make its class's spread tiny, and the sum of all ratios that of the others huge."""
    scores = centred()
    location, spread = location_and_spread(scores)
    assert location.abs().min() < 0.02
    pooled = torch.stack([s.var() for s in scores]).mean()
    expected = [((s - s.mean()).square().sum() + 5 * pooled).div(11).sqrt() for s in scores]
    # Two of the 180 scores count as odd.
    torch.testing.assert_close(location, torch.stack([s.mean() for s in scores]), rtol=0, atol=0.05)
    torch.testing.assert_close(spread, torch.stack(expected), rtol=0.1, atol=0)


def test_scores_whose_mean_is_exactly_0_lie_around_it() -> None:
    _, spread = location_and_spread(scores_of([[-1.0, 1.0], [-3.0, 3.0]]))
    torch.testing.assert_close(spread.square(), torch.tensor([2 + 50, 18 + 50]).double() / 7)


def test_class_of_scores_around_0_that_is_added_is_as_wide_as_the_others() -> None:
    """Its own two images tell little."""
    others, added = ScoreCalibration(30, 1), ScoreCalibration(1, 1)
    pixels = class_values([[3.0]])
    others.set_scale(centred(), class_values([[3.0]] * 30), torch.ones(30))
    added.set_scale(scores_of([[-0.2, 0.4]]), pixels, torch.ones(1), others)
    mean_square = others.spread.double().square().mean()
    assert added.spread.item() == pytest.approx(float(((0.18 + 5 * mean_square) / 7).sqrt()), rel=1e-5)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.6], (5 * 0.36 / 6) ** 0.5),  # nothing is known of the spread: 5 images' worth of the location, one of 0
        ([0.7, 0.7, 0.7], 0.035),  # a twentieth of the location
        ([0.0], 5e-5),
        ([0.0, 0.0], 5e-5),
    ],
)
def test_one_image_or_identical_ones_have_a_positive_spread(scores: list[float], expected: float) -> None:
    location, spread = location_and_spread(scores_of([scores, []]))
    assert location.tolist() == [pytest.approx(scores[0]), 0]
    assert spread.tolist() == [pytest.approx(expected), 1]


def test_one_odd_image_does_not_stretch_the_scale_of_its_class() -> None:
    """Deviations from the medians 10 and 1000, relative: 0, .1, .1, .1, .1, 9; 0, .1, .1; the median of them is .1."""
    scores = scores_of([[9.0, 9.0, 10.0, 10.0, 11.0, 11.0, 100.0], [900.0, 1000.0, 1100.0], [5.0]])
    pulled = without_odd_ones(scores)
    bound = 10 * (1 + 4 * 1.48 * 0.1)
    assert pulled[0].tolist() == [9, 9, 10, 10, 11, 11, pytest.approx(bound)]
    assert all(torch.equal(pulled[index], scores[index]) for index in (1, 2))
    location, spread = location_and_spread(scores)
    assert location[0].item() == pytest.approx((60 + bound) / 7)
    assert spread[0] < 4


@pytest.mark.parametrize("scores", [[[], []], [[3.0], []], [[1.0, 99.0]], [[2.0, 2.0, 2.0, 50.0]]])
def test_nothing_is_odd_where_nothing_tells_what_is_usual(scores: list[list[float]]) -> None:
    for same, of_class in zip(without_odd_ones(scores_of(scores)), scores, strict=True):
        assert same.tolist() == of_class


def test_scale_is_kept_in_full_precision_under_autocast() -> None:
    calibration = ScoreCalibration(3, 1)
    for name in ("location", "pixel_location"):
        getattr(calibration, name).copy_(torch.tensor([1.001, 2.003, 3.007]))
    for name in ("spread", "pixel_spread"):
        getattr(calibration, name).fill_(0.0123)
    arguments = torch.rand(3) + 1, torch.rand(3, 1, 4, 4) + 1, torch.arange(3)
    expected = calibration(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        actual = calibration(*arguments)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)

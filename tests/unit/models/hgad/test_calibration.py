# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the constants of the scores against NumPy, and of what they do to the scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from anomalib_hgad.models.hgad.anomaly_map import AnomalyMapGenerator, LevelScores
from anomalib_hgad.models.hgad.calibration import NormalScores, ScoreCalibration, location_and_spread

pytestmark = pytest.mark.usefixtures("seeded")

SIZE = (16, 16)
LEVELS = 2
ALL = torch.arange(2)
"""Both of two classes."""


def single_position_levels(a: np.ndarray, e: np.ndarray, dtype: torch.dtype = torch.float32) -> list[LevelScores]:
    """Levels of 1 x 1 positions, whose maps are constant: a of shape (B, L, K), e of shape (B, L)."""
    return [
        LevelScores(
            torch.from_numpy(a[:, index : index + 1]).to(dtype),
            torch.from_numpy(e[:, index : index + 1]).to(dtype),
            (1, 1),
        )
        for index in range(a.shape[1])
    ]


def normal_scores(a: np.ndarray, e: np.ndarray, y: np.ndarray, batch: int = 4, **dtype: torch.dtype) -> NormalScores:
    """The scores of all images, collected batch by batch."""
    scores = NormalScores()
    for start in range(0, len(y), batch):
        rows = slice(start, start + batch)
        of_true_class = np.take_along_axis(a[rows], y[rows, None, None], axis=2)
        scores.add(single_position_levels(of_true_class, e[rows], **dtype), torch.from_numpy(y[rows]))
    return scores


def updated(
    training: NormalScores, held_out: NormalScores | None, classes: int, dtype: torch.dtype = torch.float32
) -> ScoreCalibration:
    """Constants from scores."""
    calibration = ScoreCalibration(classes, LEVELS).to(dtype)
    calibration.update(training, held_out, AnomalyMapGenerator("product", SIZE).to(dtype))
    return calibration


def spread_by_hand(scores: list[np.ndarray]) -> list[float]:
    """Variance over n + 5, with 5 images' worth of the relative variance that all classes have together."""
    relative = sum(((s - s.mean()) ** 2).sum() / s.mean() ** 2 for s in scores) / sum(len(s) - 1 for s in scores)
    return [np.sqrt((s.var() * len(s) + 5 * relative * s.mean() ** 2) / (len(s) + 5)) for s in scores]


def s_by_hand(a: np.ndarray, e: np.ndarray, a_max: np.ndarray, e_max: np.ndarray) -> np.ndarray:
    """S of images of one position, a and e of shape (B, L)."""
    of_a, of_e = (np.exp(np.minimum(0, score - largest)) for score, largest in ((a, a_max), (e, e_max)))
    return (LEVELS - of_a.sum(axis=1)) * (LEVELS - of_e.sum(axis=1))


def random_scores(images: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, e and the classes, in no order."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(images) % classes)
    return rng.normal(size=(images, LEVELS, classes)), -rng.random((images, LEVELS)), y


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_constants_equal_numpy(batch: int) -> None:
    """However the images are batched; scores under the classes that an image is not of do not count."""
    a, e, y = random_scores(30, 3)
    held_a, held_e, held_y = (
        part[::-1][:17].copy() - shift for part, shift in zip((a, e, y), (0.3, 0.1, 0), strict=True)
    )
    training, held_out = normal_scores(a, e, y, batch), normal_scores(held_a, held_e, held_y, batch)
    calibration = updated(training, held_out, classes=3)
    scores = []
    for k in range(3):
        a_max, e_max = a[y == k][:, :, k].max(axis=0), e[y == k].max(axis=0)
        np.testing.assert_allclose(calibration.max_log_likelihood[k].numpy(), a_max, rtol=1e-6)
        np.testing.assert_allclose(calibration.max_negative_entropy[k].numpy(), e_max, rtol=1e-6)
        np.testing.assert_allclose(
            calibration.mean_log_likelihood[k].numpy(), held_a[held_y == k][:, :, k].mean(axis=0), rtol=1e-4
        )
        np.testing.assert_allclose(
            calibration.deviation[k].numpy(), held_a[held_y == k][:, :, k].std(axis=0), rtol=1e-4
        )
        scores.append(s_by_hand(held_a[held_y == k][:, :, k], held_e[held_y == k], a_max, e_max))
    np.testing.assert_allclose(calibration.location.numpy(), [s.mean() for s in scores], rtol=1e-4)
    np.testing.assert_allclose(calibration.spread.numpy(), spread_by_hand(scores), rtol=1e-4)


def test_constants_are_maxima_over_positions() -> None:
    a, e = torch.tensor([[[-3.0], [-1.0], [-2.0]]]), torch.tensor([[-0.3, -0.2, -0.1]])
    scores = NormalScores()
    scores.add([LevelScores(a, e, (1, 3))], torch.tensor([0]))
    calibration = ScoreCalibration(1, 1)
    calibration.update(scores, None, AnomalyMapGenerator("product", SIZE))
    assert calibration.max_log_likelihood.item() == -1
    assert calibration.max_negative_entropy.item() == pytest.approx(-0.1)


def test_without_calibration_the_scores_are_the_map_itself() -> None:
    training = normal_scores(*random_scores(12, 2))
    calibration, reference = updated(training, None, 2), updated(training, training, 2)
    anomaly_map = torch.rand(2, 1, 4, 4)
    assert torch.equal(calibration(anomaly_map, ALL.expand(2, 2), torch.eye(2)), anomaly_map)
    assert torch.equal(calibration.max_log_likelihood, reference.max_log_likelihood)


def test_class_without_held_out_images_takes_its_training_images() -> None:
    a, e, y = random_scores(20, 2)
    training = normal_scores(a, e, y)
    rows = y == 0
    calibration = updated(training, normal_scores(a[rows][:4], e[rows][:4], y[rows][:4]), 2)
    of_all = updated(training, training, 2)
    assert calibration.location[1].item() == pytest.approx(of_all.location[1].item(), rel=1e-5)
    assert calibration.location[0].item() != pytest.approx(of_all.location[0].item(), rel=1e-3)
    empty = updated(training, NormalScores(), 2)
    for name, constants in empty.state_dict().items():
        torch.testing.assert_close(constants, of_all.state_dict()[name], rtol=0, atol=1e-6)


def test_update_forgets_the_constants_before() -> None:
    a, e, y = random_scores(12, 2)
    first, second = normal_scores(a, e, y), normal_scores(2 * a - 7, e, y)
    calibration = updated(first, first, 2)
    calibration.update(second, second, AnomalyMapGenerator("product", SIZE))
    reference = updated(second, second, 2)
    for name, constants in calibration.state_dict().items():
        torch.testing.assert_close(constants, reference.state_dict()[name], rtol=0, atol=0)


def test_absent_class_keeps_neutral_constants() -> None:
    a, e, y = random_scores(12, 3)
    present = y != 1
    scores = normal_scores(a[present], e[present], y[present])
    calibration = updated(scores, scores, classes=3)
    assert calibration.max_log_likelihood[1].tolist() == calibration.max_negative_entropy[1].tolist() == [0, 0]
    assert (calibration.location[1].item(), calibration.spread[1].item()) == (0, 1)
    assert (calibration.location[[0, 2]] > 0).all()
    own = [s_by_hand(a[y == k][:, :, k], e[y == k], a[y == k][:, :, k].max(0), e[y == k].max(0)) for k in (0, 2)]
    np.testing.assert_allclose(calibration.spread[[0, 2]].numpy(), spread_by_hand(own), rtol=1e-4)


def test_maps_are_put_on_the_scale_of_their_class() -> None:
    """(S - location) / spread; an uncertain class blends both."""
    calibration = ScoreCalibration(2, 1)
    calibration.location.copy_(torch.tensor([1.0, 3.0]))
    calibration.spread.copy_(torch.tensor([0.5, 2.0]))
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    actual = calibration(torch.full((3, 1, 2, 2), 5.0), torch.tensor([[0, 1], [0, 1], [1, 0]]), weights)
    expected = torch.tensor([8.0, 1.0, 3 / 1.25]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    torch.testing.assert_close(actual, expected)


def test_auroc_within_a_class_stays_and_that_of_all_images_no_longer_suffers_from_the_scales() -> None:
    """Class 1 scores in hundreds what class 0 scores in ones."""
    rng = np.random.default_rng(0)
    y, label = np.arange(400) % 2, np.arange(400) // 2 % 2
    s = (rng.normal(size=400) + 5 + 2 * label) * np.where(y == 1, 100, 1)
    calibration = ScoreCalibration(2, 1).double()
    normal = [torch.from_numpy(s[(y == k) & (label == 0)]) for k in range(2)]
    for constants, values in zip((calibration.location, calibration.spread), location_and_spread(normal), strict=True):
        constants.copy_(values)
    maps = torch.from_numpy(s).view(-1, 1, 1, 1)
    scaled = calibration(maps, torch.from_numpy(y).view(-1, 1), torch.ones(400, 1).double()).flatten().numpy()
    of_classes = [roc_auc_score(label[y == k], s[y == k]) for k in range(2)]
    for k in range(2):
        assert roc_auc_score(label[y == k], scaled[y == k]) == pytest.approx(of_classes[k], abs=1e-12)
    assert roc_auc_score(label, s) < 0.8
    assert roc_auc_score(label, scaled) == pytest.approx(np.mean(of_classes), abs=0.03)


def test_normal_images_of_every_class_score_around_zero_with_width_one() -> None:
    """Class 1's log-likelihoods vary thirty times as much as class 0's."""
    a, e, y = random_scores(800, 2)
    a = -np.abs(a) * np.array([0.1, 3.0])
    scores = normal_scores(a, e, y, batch=100)
    calibration = updated(scores, scores, 2)
    weights = torch.nn.functional.one_hot(torch.from_numpy(y), 2).float()
    maps = AnomalyMapGenerator("product", SIZE)(
        single_position_levels(a, e), calibration.constants(slice(None)), weights, SIZE
    )
    assert maps[y == 1].mean() > 4 * maps[y == 0].mean()
    scaled = calibration(maps, ALL.expand(800, 2), weights).amax(dim=(1, 2, 3)).numpy()
    for k in range(2):
        assert scaled[y == k].mean() == pytest.approx(0, abs=1e-3)
        assert scaled[y == k].std() == pytest.approx(1, abs=0.05)


def test_location_and_spread_by_hand() -> None:
    """Squares 2, 0, 0 and means 2, 10, 4: the ratio squared is (2 / 4) / (1 + 3 + 0) = 1/8; 5 images' worth of it."""
    location, spread = location_and_spread([torch.tensor([1.0, 3.0]), torch.full((4,), 10.0), torch.tensor([4.0])])
    assert location.tolist() == [2, 10, 4]
    expected = torch.tensor([(2 + 5 / 8 * 4) / 7, (5 / 8 * 100) / 9, (5 / 8 * 16) / 6]).sqrt()
    torch.testing.assert_close(spread, expected)


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
    location, spread = location_and_spread([torch.tensor(scores), torch.empty(0)])
    assert location.tolist() == [pytest.approx(scores[0]), 0]
    assert spread.tolist() == [pytest.approx(expected), 1]


def test_scores_of_a_class_are_those_of_a_model_of_this_class_alone() -> None:
    a, e, y = random_scores(5, 3)
    (levels,) = normal_scores(a, e, y, batch=5).of_class(2)
    assert [level.log_likelihoods.shape for level in levels] == [(np.sum(y == 2), 1, 1)] * LEVELS
    for index, level in enumerate(levels):
        np.testing.assert_array_equal(level.log_likelihoods[:, 0, 0], a[y == 2, index, 2].astype(np.float32))
        np.testing.assert_array_equal(level.negative_entropy[:, 0], e[y == 2, index].astype(np.float32))


def test_scale_is_kept_in_full_precision_under_autocast() -> None:
    calibration = ScoreCalibration(3, 1)
    calibration.location.copy_(torch.tensor([1.001, 2.003, 3.007]))
    calibration.spread.fill_(0.0123)
    maps, weights = torch.rand(3, 1, 4, 4) + 1, torch.eye(3)
    expected = calibration(maps, torch.arange(3).expand(3, 3), weights)
    with torch.autocast("cpu", torch.bfloat16):
        actual = calibration(maps, torch.arange(3).expand(3, 3), weights)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_constants_in_double_precision() -> None:
    """As a training with precision="64-true" has them."""
    a, e, y = random_scores(12, 2)
    scores = normal_scores(a, e, y, dtype=torch.float64)
    calibration = updated(scores, scores, 2, torch.float64)
    own_a, own_e = a[y == 1][:, :, 1], e[y == 1]
    expected = s_by_hand(own_a, own_e, own_a.max(axis=0), own_e.max(axis=0)).mean()
    assert calibration.location[1].item() == pytest.approx(expected, rel=1e-6)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What holds for any numbers: flows, densities, scores and calibration on examples that hypothesis makes up."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_hgad.models.hgad.anomaly_map import (
    QUANTITIES,
    AnomalyMapGenerator,
    LevelConstants,
    LevelScores,
    image_score,
    normality,
)
from anomalib_hgad.models.hgad.calibration import ScoreCalibration
from anomalib_hgad.models.hgad.flows import FAMILIES, FeatureFlow, semantic
from anomalib_hgad.models.hgad.normal_scores import ClassValues
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture
from anomalib_hgad.models.hgad.torch_model import HgadModel
from tests.helpers.flows import random_covariance, randomize
from tests.helpers.light import LIGHT, LIGHT_FLOW_ARGUMENTS

pytestmark = pytest.mark.slow

few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**31 - 1)
families = pytest.mark.parametrize("kind", FAMILIES)


def numbers(low: float, high: float, least: int = 1, most: int = 8) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(low, high), min_size=least, max_size=most)


def new_flow(kind: str, dim: int, blocks: int, seed: int) -> FeatureFlow:
    """A flow in float64 with random parameters, permutations and whitening."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    with mock.patch.object(semantic, "HIDDEN_DIM", 8):
        options = LIGHT_FLOW_ARGUMENTS[kind]
        flow = FAMILIES[kind](dim, **options | {name: blocks for name in options if name == "coupling_blocks"})
    randomize(flow)
    flow.set_whitening(torch.randn(dim), random_covariance(dim))
    return flow


def new_features(kind: str, dim: int, height: int, width: int, scale: float) -> torch.Tensor:
    """Maps, or as many tokens."""
    if kind == "semantic":
        height, width = 1, height * width + 1
    return scale * torch.randn(2, dim, height, width, dtype=torch.float64)


@families
@few
@given(
    dim=st.integers(2, 7),
    blocks=st.integers(1, 4),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    scale=st.floats(1e-3, 30),
    seed=seeds,
)
def test_inverse_returns_the_features(
    kind: str, dim: int, blocks: int, size: tuple[int, int], scale: float, seed: int
) -> None:
    flow = new_flow(kind, dim, blocks, seed)
    features = new_features(kind, dim, *size, scale)
    with torch.no_grad():
        found = flow.inverse(flow(features).z, features)
    torch.testing.assert_close(found, features, rtol=1e-7, atol=1e-7 * scale)


@families
@few
@given(dim=st.integers(2, 4), blocks=st.integers(1, 3), scale=st.floats(1e-2, 10), seed=seeds)
def test_log_det_is_that_of_the_autograd_jacobian(kind: str, dim: int, blocks: int, scale: float, seed: int) -> None:
    """Of the whole image, by all vectors that the flow models the density of."""
    flow = new_flow(kind, dim, blocks, seed)
    features = new_features(kind, dim, 1, 2, scale)[:1]
    vectors = flow.vectors(features)[0].detach()

    def latents(rows: torch.Tensor) -> torch.Tensor:
        changed = features.clone()
        changed[0, :, 0, : len(rows)] = rows.T
        return flow(changed).z[0]

    jacobian = torch.autograd.functional.jacobian(latents, vectors).reshape(vectors.numel(), vectors.numel())
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flow(features).log_det.sum(), expected, rtol=1e-8, atol=1e-7)


def new_prior(dim: int, classes: int, centers: int, spread: float, seed: int) -> HierarchicalGaussianMixture:
    """A mixture in float64 with random centres and weights."""
    torch.manual_seed(seed)
    prior = HierarchicalGaussianMixture(classes, centers, max(dim, 2)).double()
    for name, parameter in prior.named_parameters():
        shape = (*parameter.shape[:-1], dim) if name in {"class_centers", "center_offsets"} else parameter.shape
        parameter.data = spread * torch.randn(shape, dtype=torch.float64)
    return prior


@few
@given(dim=st.integers(1, 2), classes=st.integers(1, 3), centers=st.integers(1, 3), spread=st.floats(0, 2), seed=seeds)
def test_densities_integrate_to_one(dim: int, classes: int, centers: int, spread: float, seed: int) -> None:
    """Of every class, and of the mixture over the classes, by a sum over a grid in NumPy."""
    prior = new_prior(dim, classes, centers, spread, seed)
    reach = 8 + prior.centers().abs().max().item()
    axis = np.linspace(-reach, reach, int(reach * 8))  # a sum over a smooth, narrow function is exact to rounding
    grid = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(1, -1, dim)
    with torch.no_grad():
        z = torch.from_numpy(grid)
        of_classes = prior.intra_class_log_density(z, torch.arange(classes).unsqueeze(0))[0].numpy()
        of_mixture = (prior.class_energies(z)[0] + prior.class_log_priors()).logsumexp(dim=-1).numpy()
    constant = -0.5 * dim * np.log(2 * np.pi)
    cell = (axis[1] - axis[0]) ** dim
    for log_density in (*of_classes.T, of_mixture):
        assert np.exp(log_density + constant).sum() * cell == pytest.approx(1, abs=1e-6)


@few
@given(likelihoods=numbers(-50, 50, least=2), maximum=st.floats(-50, 50))
def test_normality_grows_with_the_likelihood(likelihoods: list[float], maximum: float) -> None:
    """Up to the largest of the training; beyond it all are equally normal."""
    values = torch.tensor(sorted(likelihoods), dtype=torch.float64).view(1, -1)
    normal = normality(values, torch.tensor([maximum], dtype=torch.float64))[0]
    assert (normal.diff() >= 0).all()
    assert ((normal >= 0) & (normal <= 1)).all()


@few
@given(
    rows=st.lists(st.floats(-30, 0), min_size=4, max_size=4),
    drop=st.floats(0, 30),
    where=st.integers(0, 3),
    share=st.floats(0, 1),
)
def test_a_less_likely_position_never_lowers_a_score(rows: list[float], drop: float, where: int, share: float) -> None:
    """Anywhere on the map, whatever it is made of; nor does one less likely beside other classes."""
    before = torch.tensor(rows, dtype=torch.float64).view(1, 4)
    after = before.clone()
    after[0, where] -= drop
    zero = torch.zeros(1, 1, len(QUANTITIES), dtype=torch.float64)
    constants = LevelConstants(zero, zero, zero + 1)
    for score in ("sum", "product", "log_likelihood", "standardized", "contrast"):
        generator = AnomalyMapGenerator(score, (8, 8)).double()
        entropy = torch.full((1, 4), -0.1).double()
        maps = [generator([LevelScores(a, a + 3, entropy, (2, 2))], constants, (8, 8)) for a in (before, after)]
        assert (maps[1] >= maps[0] - 1e-12).all()
        assert image_score(maps[1], share) >= image_score(maps[0], share) - 1e-12


def sums_of(scores: list[list[float]]) -> ClassValues:
    """Of every class, a value each of some images."""
    sums = ClassValues(len(scores), torch.device("cpu"))
    for index, of_class in enumerate(scores):
        sums.add(torch.tensor(of_class, dtype=torch.float64).unsqueeze(-1), torch.full((len(of_class),), index))
    return sums


@few
@given(
    scores=st.lists(numbers(-1e6, 1e6, least=0), min_size=1, max_size=4),
    maps=numbers(-1e6, 1e6, least=2, most=10),
)
def test_calibration_keeps_the_order_within_a_class(scores: list[list[float]], maps: list[float]) -> None:
    """Of distinct scores too: none become equal that differ by more than rounding."""
    calibration = ScoreCalibration(len(scores), 1).double()
    limits = torch.tensor([max(of_class, default=math.nan) for of_class in scores])
    calibration.set_scale([torch.tensor(s, dtype=torch.float64) for s in scores], sums_of(scores), limits)
    assert (calibration.spread > 0).all()
    assert (calibration.pixel_spread > 0).all()
    values = torch.tensor(sorted(maps), dtype=torch.float64)
    apart = values.diff() > 1e-6
    for index in range(len(scores)):
        classes = torch.full((len(maps),), index)
        for calibrated in calibration(values, values.view(-1, 1, 1, 1), classes):
            assert (calibrated.flatten().diff() >= 0).all()
            assert (calibrated.flatten().diff()[apart] > 0).all()


@few
@given(scores=st.lists(numbers(-1e6, 1e6, least=0, most=20), min_size=1, max_size=4), cut=st.integers(0, 20))
def test_sums_are_those_of_numpy_however_they_are_cut(scores: list[list[float]], cut: int) -> None:
    first, second = sums_of([of_class[:cut] for of_class in scores]), [of_class[cut:] for of_class in scores]
    for index, of_class in enumerate(second):
        first.add(torch.tensor(of_class, dtype=torch.float64).unsqueeze(-1), torch.full((len(of_class),), index))
    for index, of_class in enumerate(scores):
        assert first.counts[index].item() == len(of_class)
        if of_class:
            assert first.means[index].item() == pytest.approx(np.mean(of_class), rel=1e-9, abs=1e-9)
            assert first.largest[index].item() == max(of_class)
            assert first.deviations[index].item() == pytest.approx(np.std(of_class), rel=1e-6, abs=0.1)


@few
@given(likelihoods=numbers(-1e3, 1e3, least=2), margin=st.floats(1e-3, 1e6), location=st.floats(-1e3, 1e3))
def test_novelty_falls_with_the_likelihood(likelihoods: list[float], margin: float, location: float) -> None:
    scale = NoveltyScale(1).double()
    scale.location.fill_(location)
    scale.margin.fill_(margin)
    values = torch.tensor(sorted(likelihoods), dtype=torch.float64).view(-1, 1)
    levels = [LevelScores(values, torch.zeros_like(values), torch.zeros_like(values), (1, 1))]
    assert (scale(levels, torch.zeros(len(values), dtype=torch.int64)).diff() <= 0).all()


@pytest.fixture(scope="module")
def model() -> HgadModel:
    torch.manual_seed(0)
    np.random.seed(0)
    model = HgadModel(**(LIGHT | {"image_size": (32, 32)}), num_classes=3).double().eval()
    model.calibration.maximum[..., 2] = -0.5
    return model


@few
@given(order=st.permutations(range(5)), size=st.integers(1, 5), seed=seeds)
def test_predictions_do_not_depend_on_batch_and_order(model: HgadModel, order: list[int], size: int, seed: int) -> None:
    """Neither with the class inferred nor with it given."""
    images = torch.rand(5, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    classes = torch.tensor([0, 1, 2, 0, 1])
    together = model.predict(images, classes)
    found = [model.predict(images[order[start:][:size]], classes[order[start:][:size]]) for start in range(0, 5, size)]
    for kind, expected in enumerate(together):
        assert expected is not None
        for field, values in expected._asdict().items():
            parts = torch.cat([getattr(prediction[kind], field) for prediction in found])
            torch.testing.assert_close(parts, values[order], rtol=1e-8, atol=1e-10, msg=field)

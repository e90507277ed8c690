# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Classes that come and go on features that are drawn from Gaussians."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from anomalib_hgad.models.hgad.added_classes import (
    ADDED_KEY,
    ClassGaussians,
    append_classes,
    check_can_change,
    join_classes,
    likely_to_move,
    remove_class,
    set_shape,
)
from anomalib_hgad.models.hgad.calibration import ScoreCalibration
from anomalib_hgad.models.hgad.gaussians import RIDGE
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.torch_model import HgadModel
from tests.helpers import constants

pytestmark = pytest.mark.usefixtures("seeded")

DIM = 6
CHANNELS = 128
GRID = 8
IMAGES = 4
MEANS = torch.from_numpy(np.random.default_rng(0).normal(size=(8, CHANNELS))).float()
MIXINGS = torch.from_numpy(np.random.default_rng(1).normal(size=(8, CHANNELS, CHANNELS))).float() / CHANNELS**0.5


def features(index: int, images: int = IMAGES) -> torch.Tensor:
    """Features of a class, shape (images, channels, grid, grid)."""
    noise = torch.randn(images, CHANNELS, GRID, GRID)
    return torch.einsum("dc,bchw->bdhw", MIXINGS[index], noise) + MEANS[index].view(1, -1, 1, 1)


def fitted(num_classes: int, **settings: object) -> HgadModel:
    """A model of the first classes, with constants of its scores."""
    settings = {"covariance": "full", "score": "contrast", "feature_dim": DIM} | settings
    model = HgadModel(
        "resnet18",
        {"layer2": [1.0]},
        image_size=(64, 64),
        pre_trained=False,
        num_classes=num_classes,
        flow="linear",
        **settings,
    ).eval()
    levels = [torch.cat([features(index) for index in range(num_classes)])]
    classes = torch.arange(num_classes).repeat_interleave(IMAGES)
    model.start_moments()
    model.add_moments(levels, classes)
    model.fit()
    constants.set_constants(model, levels, classes)
    return model


def gaussians(model: HgadModel, *classes: int) -> list[ClassGaussians]:
    """Gaussians of latents of classes."""
    with torch.no_grad():
        dtype = model.flows[0].whitening.dtype
        rows = [model.flows[0](features(index, 40).to(dtype)).z.flatten(0, 1).double() for index in classes]
    return [
        ClassGaussians(
            torch.stack([row.mean(dim=0) for row in rows]),
            torch.stack([torch.cov(row.T, correction=0) for row in rows]),
        )
    ]


def with_own_rivals(model: HgadModel) -> HgadModel:
    """The same, its last class contrasted with other classes as they see themselves."""
    other = deepcopy(model)
    other.rivals[-1] = torch.arange(2)
    return other


def append(model: HgadModel, *classes: int) -> list[ClassGaussians]:
    """Add classes, with neutral constants."""
    of_levels = gaussians(model, *classes)
    append_classes(model, of_levels, ScoreCalibration(len(classes), 1), NoveltyScale(len(classes)))
    return of_levels


def predictions(model: HgadModel, levels: list[torch.Tensor], class_index: torch.Tensor) -> list[torch.Tensor]:
    """All that a model says of images under their classes, and the probabilities of its classes."""
    readings = model.read(levels)
    scores = model.level_scores(readings, class_index)
    of_images, maps = model.calibration(*model.raw_scores(scores, class_index, (64, 64)), class_index)
    return [of_images, maps, model.novelty(scores, class_index), model.class_posterior(readings)]


@pytest.mark.parametrize("num_classes", [1, 2, 3, 6])
def test_added_classes_leave_all_others_as_they_were_bit_for_bit(num_classes: int) -> None:
    """Twice: a class that was added before is one of the others then."""
    model = fitted(num_classes)
    for added in ((6,), (7, 6)):
        old = model.num_classes
        shown = [*range(num_classes), *([6] * (old - num_classes))]
        levels, classes = [torch.cat([features(index) for index in shown])], torch.arange(old).repeat_interleave(IMAGES)
        expected = predictions(model, levels, classes)
        append(model, *added)
        *actual, posterior = predictions(model, levels, classes)
        for one, other in zip(actual, expected, strict=False):
            assert torch.equal(one, other)
        if len(added) == 1:  # of the two that are added then, one looks like the class that was added before
            assert torch.equal(posterior[:, :old], expected[-1])
            assert (posterior[:, old:] < 1e-30).all()
        assert model.num_classes == old + len(added)


def test_density_and_probability_of_an_added_class_are_those_of_torch() -> None:
    """Of six classes five are candidates; the seventh is one in any case."""
    model = fitted(6).double()
    (level,) = append(model, 6)
    levels = [features(6).double()]
    readings = model.read(levels)
    own = MultivariateNormal(
        level.means[0],
        level.covariances[0] + RIDGE * level.covariances[0].diagonal().mean() * torch.eye(DIM).double(),
    )
    log_densities = own.log_prob(readings[0].latents.z)
    scores = model.level_scores(readings, torch.full((IMAGES,), 6))
    expected = (log_densities + readings[0].latents.log_det) / DIM
    torch.testing.assert_close(scores[0].log_likelihood, expected, rtol=1e-6, atol=1e-6)
    assert model.class_posterior(readings).argmax(dim=1).tolist() == [6] * IMAGES
    doubtful = model.read([torch.randn(IMAGES, CHANNELS, GRID, GRID).double()])
    evidence = model.class_evidence(doubtful, torch.arange(7).expand(IMAGES, -1))
    posterior = model.class_posterior(doubtful)
    candidates = posterior.topk(6, dim=1).indices
    assert (candidates == 6).any(dim=1).all()
    expected = evidence.gather(1, candidates).softmax(dim=1)
    torch.testing.assert_close(posterior.gather(1, candidates), expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(IMAGES).double())


def test_an_added_class_is_contrasted_with_those_most_like_it() -> None:
    """By the mean log-density of its vectors, computed by torch."""
    model = fitted(4).double()
    (level,) = append(model, 7)
    (prior,) = model.priors
    drawn = MultivariateNormal(level.means[0], level.covariances[0]).sample((20000,))
    covariances = prior.covariances()
    means = torch.stack(
        [MultivariateNormal(prior.class_centers[k].detach(), covariances[k]).log_prob(drawn).mean() for k in range(4)]
    )
    most_alike = means.topk(2).indices
    assert model.rivals[4].tolist() == [5, 6]
    assert torch.equal(prior.class_centers[5:], prior.class_centers[most_alike])
    distance = (level.means[0] - prior.class_centers[:4].mean(dim=0)).detach().numpy()
    shown = (level.covariances[0].numpy() + 4 / 5 * np.outer(distance, distance)) / 5
    for row, rival in zip((5, 6), most_alike.tolist(), strict=True):
        expected = covariances[rival].numpy()
        expected = expected + RIDGE * np.trace(expected) / DIM * shown
        np.testing.assert_allclose(covariances[row].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_contrast_of_an_added_class_is_about_that_of_joint_training() -> None:
    """Of one that varies where the others do not: as they see themselves they would be unlikely beyond measure."""
    torch.manual_seed(0)
    of_others = [features(index, 20) for index in range(3)]
    for level in of_others:
        level[:, :20] *= 0.1
    shown = 3 * features(6, 20)
    joint, model = fitted(4, feature_dim=None), fitted(3, feature_dim=None)
    for fitted_model, levels in ((joint, [*of_others, shown]), (model, of_others)):
        fitted_model.start_moments()
        fitted_model.add_moments([torch.cat(levels)], torch.arange(len(levels)).repeat_interleave(20))
        fitted_model.fit()
    with torch.no_grad():
        rows = model.flows[0](shown).z.flatten(0, 1).double()
    level = ClassGaussians(rows.mean(dim=0).unsqueeze(0), torch.cov(rows.T, correction=0).unsqueeze(0))
    append_classes(model, [level], ScoreCalibration(1, 1), NoveltyScale(1))
    index = torch.full((20,), 3)
    together, as_they_are, added = (
        float(of.level_scores(of.read([shown]), index)[0].contrast.mean())
        for of in (joint, with_own_rivals(model), model)
    )
    assert 0.5 * together < added < 2 * together < 0.1 * as_they_are


def test_a_class_that_had_no_other_keeps_no_contrast() -> None:
    model = fitted(1)
    append(model, 6)
    assert model.rivals.tolist() == [[0, 0], [2, 1]]
    levels = model.read([features(0)])
    assert model.level_scores(levels, torch.zeros(IMAGES, dtype=torch.int64))[0].contrast.abs().max() == 0
    assert model.level_scores(levels, torch.ones(IMAGES, dtype=torch.int64))[0].contrast.abs().min() > 0


@pytest.mark.parametrize("removed", [0, 2, 4])
def test_a_removed_class_leaves_the_scores_of_all_others(removed: int) -> None:
    """The fifth is an added one."""
    model = fitted(4)
    append(model, 6)
    shown = [0, 1, 2, 3, 6]
    left = [index for index in range(5) if index != removed]
    levels = [torch.cat([features(shown[index]) for index in left])]
    expected = predictions(model, levels, torch.tensor(left).repeat_interleave(IMAGES))
    needed = [removed] if (model.rivals[left] == removed).any() else []
    needed = [*([5, 6] if removed < 4 else []), *needed]
    remove_class(model, removed)
    actual = predictions(model, levels, torch.arange(4).repeat_interleave(IMAGES))
    for one, other in zip(actual[:-1], expected[:-1], strict=True):
        assert torch.equal(one, other)
    assert actual[-1].argmax(dim=1).tolist() == torch.arange(4).repeat_interleave(IMAGES).tolist()
    assert actual[-1].shape == (4 * IMAGES, 4)
    assert len(model.priors[0].class_centers) == 4 + len(needed), "one that no other is contrasted with is gone"


@pytest.mark.parametrize("num_classes", [1, 2, 4])
@pytest.mark.parametrize("changes", [[6], [6, -1], [-1], [-1, 6], [6, -1, -1]], ids=str)
def test_a_model_of_the_same_shape_takes_the_state(num_classes: int, changes: list[int]) -> None:
    model = fitted(num_classes)
    for change in changes:
        if change < 0 and model.num_classes > 1:
            remove_class(model, 0)
        elif change >= 0:
            append(model, change)
    checkpoint = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        ADDED_KEY: model.num_added,
    }
    other = fitted(num_classes)
    other.set_num_classes(model.num_classes)
    set_shape(other, checkpoint, model.num_classes)
    other.load_state_dict(model.state_dict())
    levels = [features(0)]
    index = torch.zeros(IMAGES, dtype=torch.int64)
    for one, another in zip(predictions(other, levels, index), predictions(model, levels, index), strict=True):
        assert torch.equal(one, another)


def test_joined_classes_can_be_fitted_together() -> None:
    model = fitted(3)
    append(model, 6)
    remove_class(model, 1)
    join_classes(model)
    assert (model.num_added, len(model.priors[0].class_centers), model.rivals.shape) == (0, 3, (3, 2))
    levels, classes = [torch.cat([features(index) for index in (0, 2, 6)])], torch.arange(3).repeat_interleave(IMAGES)
    model.start_moments()
    model.add_moments(levels, classes)
    model.fit()
    assert model.class_posterior(model.read(levels)).argmax(dim=1).tolist() == classes.tolist()


def test_classes_that_may_lose_images_are_told_by_what_is_kept_of_them() -> None:
    """One that is given twice is like itself, and no other is."""
    model = fitted(3)
    model.novelty.deviation.fill_(0.05)
    append(model, 7)
    assert likely_to_move(model, 3) == []
    append(model, 1)
    assert likely_to_move(model, 4) == [(1, 4)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "single_gaussian"}, "with classes; this one has prior='single_gaussian'"),
        (
            {"covariance": "identity", "score": "standardized"},
            "with covariance='full'; this one has covariance='identity'",
        ),
        ({"score": "product"}, "with score='contrast' or 'standardized'; this one has score='product'"),
    ],
)
def test_models_whose_classes_are_not_each_for_itself_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_can_change(fitted(2, **settings))


def test_constants_of_an_added_class_are_its_own() -> None:
    model = fitted(2)
    before = deepcopy(model)
    calibration, novelty = ScoreCalibration(1, 1), NoveltyScale(1)
    calibration.location.fill_(3)
    novelty.margin.fill_(5)
    append_classes(model, gaussians(model, 6), calibration, novelty)
    assert model.calibration.location.tolist() == [*before.calibration.location.tolist(), 3]
    assert model.novelty.margin.tolist() == [*before.novelty.margin.tolist(), 5]

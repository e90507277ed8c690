# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the whole model: its scores, its classes, and that nothing but the image decides a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from anomalib_hgad.models.hgad.flows.base import RELATIVE_RIDGE, Latents
from anomalib_hgad.models.hgad.gaussians import RIDGE
from anomalib_hgad.models.hgad.loss import LOSS_WEIGHTS, HgadLosses, hgad_losses, total_loss
from anomalib_hgad.models.hgad.moments import Gaussians
from anomalib_hgad.models.hgad.torch_model import CANDIDATE_CLASSES, HgadModel, deciding_positions
from tests.helpers import constants
from tests.helpers.light import LIGHT_FLOW_ARGUMENTS

pytestmark = pytest.mark.usefixtures("seeded")

SIZE = (64, 64)


def make_model(scales: Sequence[float] = (1.0,), **settings: object) -> HgadModel:
    """A small model, away from its start."""
    arguments = {
        "num_classes": 3,
        "num_centers": 2,
        "flow_arguments": {"coupling_blocks": 2, "condition_dim": 8},
        **settings,
    }
    model = HgadModel("resnet18", {"layer2": scales}, image_size=SIZE, pre_trained=False, **arguments).eval()
    for prior in model.priors:
        nn.init.normal_(prior.class_logits)
        nn.init.normal_(prior.center_logits)
    return model


def set_constants(model: HgadModel) -> None:
    """Constants of the scores from random images."""
    classes = torch.arange(3 * model.num_classes) % model.num_classes
    constants.set_constants(model, model.encoder(torch.randn(len(classes), 3, *SIZE)), classes)


@pytest.fixture
def model() -> HgadModel:
    """Two levels, three classes, with constants."""
    model = make_model((1.0, 0.5))
    set_constants(model)
    return model


@pytest.mark.parametrize("prior", ["hierarchical", "fixed_centers", "single_gaussian"])
@pytest.mark.parametrize("labelled", [False, True])
def test_score_does_not_depend_on_the_batch(prior: str, labelled: bool) -> None:
    """The same image alone, in a batch of 2 and in a batch of 32."""
    model = make_model((1.0, 0.5), prior=prior)
    set_constants(model)
    images = torch.randn(32, 3, *SIZE)
    images[1:] *= torch.linspace(0.1, 5, 31).view(-1, 1, 1, 1)
    classes = torch.arange(32) % model.num_classes
    predictions = [
        model.predict(images[:size], classes[:size] if labelled else None)[1 if labelled else 0] for size in (1, 2, 32)
    ]
    for prediction in predictions[1:]:
        for actual, expected in zip(prediction, predictions[0], strict=True):
            torch.testing.assert_close(actual[:1], expected, rtol=1e-4, atol=1e-5)
    assert predictions[2].pred_score.std() > 1e-3


def test_level_scores_are_the_densities_of_torch() -> None:
    """a under the class that is asked for, e, and the most likely class of the image."""
    model = make_model()
    images = torch.randn(4, 3, *SIZE)
    readings = model.read(model.encoder(images))
    class_index = torch.tensor([2, 0, 1, 2])
    (level,) = model.level_scores(readings, class_index)
    (prior,) = model.priors
    with torch.no_grad():
        latents = model.flows[0](model.encoder(images)[0])
        z = latents.z.double()
        of_classes = []
        for k in range(3):
            main = prior.class_centers[k].double()
            centers = torch.stack([main, *(main + offset for offset in prior.center_offsets[k].double())])
            mixture = MixtureSameFamily(
                Categorical(logits=prior.center_logits[k].double()), Independent(Normal(centers, 1.0), 1)
            )
            of_classes.append((mixture.log_prob(z) + latents.log_det.double()) / 128)
        energies = -0.5 * (z.unsqueeze(2) - prior.class_centers.double()).square().sum(dim=-1)
        log_joint = energies + prior.class_logits.double().log_softmax(dim=-1)
    expected = torch.stack([of_classes[y][row] for row, y in enumerate(class_index)])
    torch.testing.assert_close(level.log_likelihood.double(), expected, rtol=1e-4, atol=1e-5)
    entropy = Categorical(logits=energies).entropy()
    torch.testing.assert_close(level.negative_entropy.double(), -entropy, rtol=1e-3, atol=1e-4)
    assert level.grid == (8, 8)
    assert torch.equal(readings[0].class_logits.argmax(dim=-1), log_joint.sum(dim=1).argmax(dim=-1))


def test_single_gaussian_is_the_standard_normal() -> None:
    """CFLOW-AD: log N(z; 0, I) + log |det J|, per dimension, whatever the number of classes asked for."""
    model = make_model(prior="single_gaussian", num_classes=5)
    images = torch.randn(2, 3, *SIZE)
    (level,) = model.level_scores(model.read(model.encoder(images)), torch.zeros(2, dtype=torch.int64))
    with torch.no_grad():
        latents = model.flows[0](model.encoder(images)[0])
    expected = (Normal(0.0, 1.0).log_prob(latents.z).sum(dim=-1) + latents.log_det) / 128
    torch.testing.assert_close(level.log_likelihood, expected, rtol=1e-4, atol=1e-5)
    assert model.num_classes == 1
    assert not model.priors[0].class_centers.requires_grad


def test_fixed_centers_are_not_trained_and_all_else_is() -> None:
    model = make_model(prior="fixed_centers")
    torch.stack(model.losses(model.encoder(torch.randn(3, 3, *SIZE)), torch.arange(3))).sum().backward()
    for name, parameter in model.priors.named_parameters():
        assert (parameter.grad is None) == name.endswith("class_centers"), name
    assert make_model().priors[0].class_centers.requires_grad


@pytest.mark.parametrize("score", ["sum", "product", "log_likelihood"])
def test_map_of_one_class_is_that_of_the_log_likelihood(score: str) -> None:
    """The entropy of one class is 0; its map would make every product 0."""
    model = make_model(num_classes=1, score=score)
    images = torch.randn(2, 3, *SIZE)
    (level,) = model.level_scores(model.read(model.encoder(images)), torch.zeros(2, dtype=torch.int64))
    model.calibration.maximum[..., 0] = level.log_likelihood.max()
    normality = (level.log_likelihood - level.log_likelihood.max()).exp().view(2, 1, 8, 8)
    upsampled = nn.functional.interpolate(normality, SIZE, mode="bilinear", align_corners=True)
    expected = model.anomaly_map_generator.blur(1 - upsampled)
    anomaly_map = model(images).anomaly_map
    torch.testing.assert_close(anomaly_map, expected, rtol=0, atol=1e-6)
    assert anomaly_map.std() > 1e-4


def test_given_class_is_a_certain_posterior(model: HgadModel) -> None:
    """What a class prior of almost 1 makes the model infer."""
    images = torch.randn(2, 3, *SIZE)
    for y in range(3):
        _, given = model.predict(images, torch.tensor([y, y]))
        for prior in model.priors:
            prior.class_logits.data.zero_()
            prior.class_logits.data[y] = 1e5
        inferred, nothing = model.predict(images)
        assert nothing is None
        assert inferred.class_posterior[:, y].tolist() == [1, 1]
        torch.testing.assert_close(inferred.anomaly_map, given.anomaly_map, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(inferred.pred_score, given.pred_score, rtol=1e-4, atol=1e-4)


def test_an_image_is_scored_under_its_most_probable_class_alone() -> None:
    """Another class's constants change nothing, however probable it is."""
    model = make_model(num_classes=9)
    set_constants(model)
    images = torch.randn(1, 3, *SIZE)
    before, _ = model.predict(images)
    best = before.class_posterior.argmax()
    others = torch.arange(9) != best
    for constant in (model.calibration.location, model.calibration.pixel_location, model.novelty.location):
        constant[others] = 1e6
    after, _ = model.predict(images)
    for actual, expected in zip(after, before, strict=True):
        assert torch.equal(actual, expected)
    model.calibration.location[best] = 1e6
    assert model.predict(images)[0].pred_score.abs().item() > 1e4


def test_given_class_is_that_of_each_image(model: HgadModel) -> None:
    images = torch.randn(3, 3, *SIZE)
    _, mixed = model.predict(images, torch.tensor([2, 0, 1]))
    for row, y in enumerate((2, 0, 1)):
        _, same = model.predict(images, torch.full((3,), y))
        torch.testing.assert_close(mixed.pred_score[row], same.pred_score[row])
    _, others = model.predict(images, torch.tensor([0, 1, 2]))
    assert (mixed.pred_score - others.pred_score).abs().min() > 1e-3


@pytest.mark.parametrize("share", [0.0, 0.02, 1.0])
def test_image_score_is_the_mean_of_the_largest_share_of_its_map(share: float) -> None:
    """Before score and map are put on scales of their own."""
    model = make_model((1.0, 0.5), score_share=share)
    set_constants(model)
    images, classes = torch.randn(3, 3, *SIZE), torch.tensor([0, 1, 2])
    calibration = model.calibration
    inferred, given = model.predict(images, classes)
    for prediction, y in ((inferred, inferred.class_posterior.argmax(dim=-1)), (given, classes)):
        raw = prediction.anomaly_map.flatten(1).double() * calibration.pixel_spread[y].unsqueeze(1)
        pixels = np.sort((raw + calibration.pixel_location[y].unsqueeze(1)).numpy(), axis=1)[:, ::-1]
        expected = pixels[:, : max(1, round(share * pixels.shape[1]))].mean(axis=1)
        actual = prediction.pred_score * calibration.spread[y] + calibration.location[y]
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_forward_predicts_with_the_inferred_class_and_without_gradients(model: HgadModel) -> None:
    images = torch.randn(2, 3, *SIZE, requires_grad=True)
    with torch.enable_grad():
        batch = model(images)
    expected, _ = model.predict(images)
    for name in ("pred_score", "anomaly_map"):
        assert not getattr(batch, name).requires_grad
        torch.testing.assert_close(getattr(batch, name), getattr(expected, name))


def test_losses_are_the_sum_over_the_levels(model: HgadModel) -> None:
    images, y = torch.randn(4, 3, *SIZE), torch.tensor([0, 2, 1, 2])
    losses = model.losses(model.encoder(images), y, label_smoothing=0.1)
    expected = np.zeros(5)
    for features, flow, prior in zip(model.encoder(images), model.flows, model.priors, strict=True):
        latents = flow(features)
        expected += [term.item() for term in hgad_losses(prior, latents.z, latents.log_det, y, label_smoothing=0.1)]
    np.testing.assert_allclose([term.item() for term in losses], expected, rtol=1e-4)


def test_losses_train_flows_and_priors_but_not_the_backbone(model: HgadModel) -> None:
    torch.stack(model.losses(model.encoder(torch.randn(6, 3, *SIZE)), torch.arange(6) % 3)).sum().backward()
    for name, parameter in model.named_parameters():
        trained = not name.startswith("encoder") and "w_perm" not in name
        assert (parameter.grad is not None and bool(parameter.grad.abs().max() > 0)) == trained, name


def test_a_training_step_on_the_sum_raises_the_likelihood_of_every_level(model: HgadModel) -> None:
    images, y = torch.randn(6, 3, *SIZE), torch.arange(6) % 3
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def of_levels() -> list[float]:
        latents = [flow(features) for flow, features in zip(model.flows, model.encoder(images), strict=True)]
        rows = zip(model.priors, latents, strict=True)
        return [hgad_losses(prior, of_level.z, of_level.log_det, y).intra.item() for prior, of_level in rows]

    before = of_levels()
    model.losses(model.encoder(images), y).intra.backward()
    optimizer.step()
    assert all(after < start for after, start in zip(of_levels(), before, strict=True))


@pytest.mark.nightly
@pytest.mark.slow
def test_training_under_bfloat16_autocast_follows_that_in_full_precision() -> None:
    """What precision="bf16-mixed" does: no nan, and a loss that falls as it does in float32."""
    curves = []
    for autocast in (False, True):
        torch.manual_seed(0)
        np.random.seed(0)
        model = make_model((1.0, 0.5), flow_arguments={"coupling_blocks": 4, "condition_dim": 8})
        model.set_whitening([(torch.zeros(128), torch.eye(128)) for _ in model.flows])
        features = model.encoder(torch.randn(6, 3, *SIZE))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        curve = []
        for _ in range(25):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                losses = model.losses(features, torch.arange(6) % 3)
            assert all(term.dtype == torch.float32 for term in losses)
            loss = losses.inter + 100 * losses.mutual_information + losses.entropy + losses.intra + losses.likelihood
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    full, half = np.array(curves)
    assert np.isfinite(half).all()
    assert full[-1] < 0.5 * full[0]
    np.testing.assert_allclose(half, full, rtol=0.1, atol=0.05 * full[0])


def test_setting_the_number_of_classes_starts_priors_and_constants_anew_and_keeps_the_flows(model: HgadModel) -> None:
    flows = {name: tensor.clone() for name, tensor in model.flows.state_dict().items()}
    model.set_num_classes(5)
    assert model.num_classes == 5
    fresh = HgadModel(
        "resnet18", {"layer2": [1.0, 0.5]}, image_size=SIZE, pre_trained=False, num_classes=5, num_centers=2
    )
    for own, other in zip(model.priors, fresh.priors, strict=True):
        torch.testing.assert_close(own.class_centers, other.class_centers)
        assert own.center_offsets.shape == (5, 1, 128)
        assert (own.class_logits == 0).all()
    for name, tensor in fresh.calibration.state_dict().items():
        assert torch.equal(model.calibration.state_dict()[name], tensor)
    for name, tensor in model.flows.state_dict().items():
        assert torch.equal(tensor, flows[name]), name


@pytest.mark.parametrize(("start", "then"), [(1, 3), (3, 1)])
def test_score_follows_the_number_of_classes(start: int, then: int) -> None:
    """One class: the log-likelihood's map. Several: the sum."""
    model = make_model(num_classes=start)
    model.set_num_classes(then)
    reference = make_model(num_classes=then)
    reference.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(model(images).anomaly_map, reference(images).anomaly_map)


def test_state_dict_holds_all_that_a_score_needs(model: HgadModel) -> None:
    """Also the whitening and the constants."""
    model.set_whitening([(torch.rand(128), torch.rand(128).add(0.5).diag()) for _ in model.flows])
    set_constants(model)
    other = make_model((1.0, 0.5))
    assert not other.whitened
    other.load_state_dict(model.state_dict())
    assert other.whitened
    images = torch.randn(2, 3, *SIZE)
    torch.testing.assert_close(other(images).pred_score, model(images).pred_score, rtol=0, atol=1e-6)


def test_map_has_the_size_of_the_images(model: HgadModel) -> None:
    """Also of images that are not of the size that the model was made for."""
    images = torch.randn(1, 3, 96, 128)
    prediction, _ = model.predict(images)
    assert prediction.anomaly_map.shape == (1, 1, 96, 128)
    scale = model.calibration
    y = prediction.class_posterior.argmax(dim=-1)
    largest = prediction.anomaly_map.max() * scale.pixel_spread[y] + scale.pixel_location[y]
    torch.testing.assert_close(prediction.pred_score * scale.spread[y] + scale.location[y], largest)


def test_losses_are_named_as_their_equations() -> None:
    """The trainer logs the terms, and weighs them, under these names."""
    assert HgadLosses._fields == ("inter", "mutual_information", "entropy", "intra", "likelihood")


SHARES = (0.06, 0.4, 0.1, 0.25, 0.04, 0.15)


def blind_model(probabilities: Sequence[float]) -> HgadModel:
    """A model with these probabilities of the classes for every image, whose main centres are all in one place.

    A latent tells nothing of its class then: e = -ln K everywhere, so that maps are flat, and the posterior is the
    product of the class priors at the 8 * 8 + 4 * 4 positions of the two levels.
    """
    model = make_model((1.0, 0.5), num_classes=len(probabilities), score="entropy")
    for prior in model.priors:
        nn.init.zeros_(prior.class_centers)
        prior.class_logits.data.copy_(torch.tensor(probabilities).log() / 80)
    return model


@pytest.mark.slow
def test_posterior_is_the_product_over_all_positions_of_all_levels() -> None:
    prediction, _ = blind_model(SHARES).predict(torch.randn(2, 3, *SIZE))
    torch.testing.assert_close(prediction.class_posterior, torch.tensor([SHARES] * 2), rtol=1e-3, atol=0)


def test_score_is_on_the_scale_of_the_most_probable_class() -> None:
    """Of a probability of 0.4, the others count for nothing."""
    model = blind_model(SHARES)
    model.calibration.location.copy_(torch.tensor([5.0, 1.0, 4.0, 2.0, 1000.0, 3.0]))
    model.calibration.spread.copy_(torch.tensor([2.0, 0.5, 2.0, 1.0, 1000.0, 1.0]))
    model.calibration.pixel_location.copy_(torch.tensor([9.0, -1.0, 9.0, 9.0, 9.0, 9.0]))
    model.calibration.pixel_spread.copy_(torch.tensor([9.0, 0.1, 9.0, 9.0, 9.0, 9.0]))
    entropy_map = 2 * (1 - 1 / 6)
    prediction, _ = model.predict(torch.randn(1, 3, *SIZE))
    assert prediction.pred_score.item() == pytest.approx((entropy_map - 1) / 0.5, rel=1e-3)
    torch.testing.assert_close(
        prediction.anomaly_map, torch.full((1, 1, *SIZE), (entropy_map + 1) / 0.1), rtol=1e-3, atol=0
    )


def test_entropy_counts_from_the_largest_of_each_class_and_level() -> None:
    """S_e = 2 - exp(-ln 3 - e_max) of both levels, with e_max for the normalities that are written down."""
    model = blind_model((0.5, 0.3, 0.2))
    normalities = torch.tensor([[0.5, 0.75], [0.4, 0.6], [0.9, 0.8]])
    model.calibration.maximum[..., 2] = -math.log(3) - normalities.log()
    inferred, given = model.predict(torch.randn(3, 3, *SIZE), torch.tensor([0, 1, 2]))
    for prediction, expected in ((given, [0.75, 1.0, 0.3]), (inferred, [0.75] * 3)):
        maps = torch.tensor(expected).view(3, 1, 1, 1).expand(3, 1, *SIZE)
        torch.testing.assert_close(prediction.anomaly_map, maps, rtol=1e-3, atol=1e-4)


IMAGES_OF_CLASS = 40
CLOSED_FORM = {"flow": "linear", "flow_arguments": None, "num_centers": 1, "covariance": "full", "score": "contrast"}


class ClosedForm:
    """A model of Gaussians in float64 that is fitted to drawn features, and the same Gaussians as PyTorch has them.

    Args:
        num_classes: K. Classes lie on a line, each beside the next.
        settings: Of the model.
    """

    def __init__(self, num_classes: int, **settings: object) -> None:
        self.model = HgadModel(
            "resnet18", {"layer1": [1.0, 0.5]}, image_size=(16, 16), pre_trained=False, num_classes=num_classes,
            **CLOSED_FORM | settings,
        ).double()  # fmt: skip
        self.classes = torch.arange(num_classes).repeat_interleave(IMAGES_OF_CLASS)
        self.features = self.draw(self.classes)
        self.model.start_moments()
        for rows in torch.randperm(len(self.classes)).split(5):
            self.model.add_moments([level[rows] for level in self.features], self.classes[rows])
        self.model.fit()

    @staticmethod
    def draw(class_index: torch.Tensor) -> list[torch.Tensor]:
        """Features of two levels, of 4 x 4 and 2 x 2 positions."""
        place = 0.4 * class_index.double() ** 1.5
        width = 1 + 0.2 * (class_index % 3).double()
        return [
            place.view(-1, 1, 1, 1) + width.view(-1, 1, 1, 1) * torch.randn(len(class_index), 64, side, side).double()
            for side in (4, 2)
        ]

    def log_likelihoods(self, features: list[torch.Tensor]) -> list[np.ndarray]:
        """log p(x|k) / D of every level, shape (B, n, K), by PyTorch from the fitted features in their own space.

        Both ridges are those of the definition: a share of the mean variance, before the whitening and after it.
        """
        of_levels = []
        for fitted, level in zip(self.features, features, strict=True):
            rows = [fitted[self.classes == k].permute(0, 2, 3, 1).flatten(0, 2) for k in self.classes.unique()]
            pooled = torch.cov(torch.cat(rows).T, correction=0)
            pooled = pooled + RELATIVE_RIDGE * pooled.diagonal().mean() * torch.eye(64)
            unwhiten = torch.linalg.cholesky(pooled)
            whiten = torch.linalg.inv(unwhiten)
            log_densities = []
            for of_class in rows:
                latent = whiten @ torch.cov(of_class.T, correction=0) @ whiten.T
                latent = latent + RIDGE * latent.diagonal().mean() * torch.eye(64)
                gaussian = MultivariateNormal(of_class.mean(dim=0), unwhiten @ latent @ unwhiten.T)
                log_densities.append(gaussian.log_prob(level.permute(0, 2, 3, 1).flatten(1, 2)) / 64)
            of_levels.append(torch.stack(log_densities, dim=-1).numpy())
        return of_levels

    def rivals(self) -> np.ndarray:
        """The two other classes under which a class's fitted vectors are likeliest, the likelier one first."""
        of_levels = self.log_likelihoods(self.features)
        mean = np.stack(
            [sum(level[self.classes == k].mean(axis=(0, 1)) for level in of_levels) for k in self.classes.unique()]
        )
        np.fill_diagonal(mean, -np.inf)
        return np.argsort(-mean, axis=1)[:, : min(2, len(mean) - 1)]


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_rivals_are_the_classes_under_which_its_vectors_are_likeliest(num_classes: int) -> None:
    closed = ClosedForm(num_classes)
    assert torch.equal(closed.model.rivals, torch.from_numpy(closed.rivals()))
    assert set(closed.model.rivals[0].tolist()) == {1, 2} - {num_classes}, "the nearest on the line"


@pytest.mark.parametrize("num_classes", [2, 6])
def test_contrast_is_with_the_rivals(num_classes: int) -> None:
    """c = a - log of the sum of the rivals' likelihoods per dimension, by PyTorch and SciPy."""
    closed = ClosedForm(num_classes)
    y = torch.tensor([0, 1, num_classes - 1, 0])
    features = closed.draw(torch.tensor([0, 1, 0, 1]))
    levels = closed.model.level_scores(closed.model.read(features), y)
    for level, of_classes in zip(levels, closed.log_likelihoods(features), strict=True):
        for row, index in enumerate(y.tolist()):
            own = of_classes[row, :, index]
            others = logsumexp(of_classes[row][:, closed.rivals()[index]], axis=-1)
            np.testing.assert_allclose(level.log_likelihood[row].numpy(), own, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(level.contrast[row].numpy(), own - others, rtol=1e-5, atol=1e-5)


def test_other_scores_need_no_rivals() -> None:
    closed = ClosedForm(3, score="standardized")
    levels = closed.model.level_scores(closed.model.read(closed.features), closed.classes)
    assert all((level.contrast == 0).all() for level in levels)


def test_no_class_is_its_own_rival_where_others_have_no_vectors() -> None:
    """Two of three classes have none, so that for each class at least one rival is a class of no vectors."""
    model = ClosedForm(3).model
    counts = torch.tensor([400.0, 0.0, 0.0], dtype=torch.float64)
    levels = [
        Gaussians(counts, torch.zeros(3, flow.dim).double(), torch.eye(flow.dim).double().expand(3, -1, -1))
        for flow in model.feature_flows
    ]
    model.fit_latents(levels)
    assert [sorted(rivals) for rivals in model.rivals.tolist()] == [[1, 2], [0, 2], [0, 1]]


def test_rivals_until_they_are_fitted_are_other_classes_that_there_are() -> None:
    model = ClosedForm(4).model
    for num_classes, count in ((5, 2), (2, 1), (1, 0)):
        model.set_num_classes(num_classes)
        assert model.rivals.shape == (num_classes, count)
        for index, rivals in enumerate(model.rivals.tolist()):
            assert len(set(rivals) - {index}) == count
            assert set(rivals) < set(range(num_classes))


def test_class_is_that_of_the_median_densities() -> None:
    """Softmax of the levels' positions times their median log-density, among equally frequent classes."""
    closed = ClosedForm(3)
    # Between two classes, for probabilities that are not 0 and 1.
    features = [(a + b) / 2 for a, b in zip(*(closed.draw(torch.full((4,), k)) for k in (0, 1)), strict=True)]
    logits = sum(
        level.shape[1] * 64 * np.sort(level, axis=1)[:, (level.shape[1] - 1) // 2]
        for level in closed.log_likelihoods(features)
    )
    actual = closed.model.class_posterior(closed.model.read(features))
    np.testing.assert_allclose(actual.numpy(), softmax(logits, axis=1), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    ("grid", "rows", "columns"),
    [((9, 8), [0, 2, 4, 6, 8], [0, 2, 4, 6]), ((7, 8), range(7), range(8)), ((1, 1), [0], [0])],
)
def test_positions_that_decide_the_class(grid: tuple[int, int], rows: Sequence[int], columns: Sequence[int]) -> None:
    """Every second row and column of a grid that is large enough, in reading order."""
    height, width = grid
    z = torch.arange(height * width).view(1, -1, 1).float()
    decide = deciding_positions(Latents(z, torch.zeros(1, height * width), grid))
    assert decide.flatten().tolist() == [row * width + column for row in rows for column in columns]


def test_defect_of_a_quarter_of_an_image_leaves_its_class() -> None:
    """However unlikely it is under it: all positions together would say another class."""
    closed = ClosedForm(3)
    features = closed.draw(torch.zeros(5, dtype=torch.int64))
    for level in features:
        positions = level.flatten(2)
        positions[..., : positions.shape[-1] // 4] += 40
    posterior = closed.model.class_posterior(closed.model.read(features))
    assert posterior.argmax(dim=-1).tolist() == [0] * 5
    together = sum(level.sum(axis=1) for level in closed.log_likelihoods(features))
    assert (together.argmax(axis=1) != 0).all()


@pytest.mark.parametrize(("rank", "found"), [(1, True), (5, True), (6, False)])
def test_class_is_found_among_the_five_first_by_the_shared_covariance(rank: int, found: bool) -> None:
    """Its own densities decide, whatever its rank among them."""
    closed = ClosedForm(7)
    features = closed.draw(torch.full((3,), 6))
    order = [0, 1, 2, 3, 4, 5]
    order.insert(rank - 1, 6)
    logits = torch.zeros(3, 7).double()
    logits[:, order] = torch.arange(7, 0, -1).double()
    readings = [reading._replace(class_logits=logits) for reading in closed.model.read(features)]
    posterior = closed.model.class_posterior(readings)
    assert (posterior.argmax(dim=-1) == 6).tolist() == [found] * 3
    assert ((posterior[:, 6] == 0) == (not found)).all()


def test_classes_beyond_the_candidates_have_no_probability() -> None:
    closed = ClosedForm(CANDIDATE_CLASSES + 2)
    posterior = closed.model.class_posterior(closed.model.read(closed.features))
    assert ((posterior > 0).sum(dim=-1) <= CANDIDATE_CLASSES).all()
    torch.testing.assert_close(posterior.sum(dim=-1), torch.ones(len(posterior)).double())
    assert (posterior.argmax(dim=-1) == closed.classes).double().mean() > 0.95


def test_contrast_of_the_only_class_leaves_the_standardized_map() -> None:
    maps = []
    for score in ("contrast", "standardized"):
        torch.manual_seed(0)
        closed = ClosedForm(1, score=score)
        constants.set_constants(closed.model, closed.features, closed.classes)
        levels = closed.model.level_scores(closed.model.read(closed.features), closed.classes)
        maps.append(closed.model.raw_scores(levels, closed.classes, (16, 16))[1])
    assert torch.equal(*maps)


def test_state_dict_holds_the_rivals() -> None:
    closed = ClosedForm(4)
    other = HgadModel(
        "resnet18", {"layer1": [1.0, 0.5]}, image_size=(16, 16), pre_trained=False, num_classes=4, **CLOSED_FORM
    ).double()
    assert not torch.equal(other.rivals, closed.model.rivals)
    other.load_state_dict(closed.model.state_dict())
    assert torch.equal(other.rivals, closed.model.rivals)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"score": "contrast"},
            "expected covariance='full' or another score than 'contrast', got covariance='identity'",
        ),
        ({"score_share": -0.1}, "expected 0 <= score_share <= 1, got -0.1"),
        ({"score_share": 1.5}, "expected 0 <= score_share <= 1, got 1.5"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**settings)


@pytest.mark.parametrize("flow", list(LIGHT_FLOW_ARGUMENTS))
def test_all_that_is_trained_has_a_gradient_from_every_prior_in_every_stage(flow: str) -> None:
    """Several processes would wait for it, and stop at the second step."""
    backbone, level = ("vit_tiny_patch16_224", "blocks.1") if flow == "semantic" else ("resnet18", "layer2")
    options, size = LIGHT_FLOW_ARGUMENTS[flow], (32, 32)
    model = HgadModel(backbone, {level: (1.0,)}, image_size=size, pre_trained=False, flow=flow, flow_arguments=options)
    features = model.encoder(torch.randn(3, 3, *size))
    for prior, (covariance, centers), stage in product(
        ("hierarchical", "fixed_centers", "single_gaussian"),
        (("identity", 1), ("identity", 3), ("full", 1)),
        (1, 2),
    ):
        model.prior_kind, model.covariance, model.num_centers = prior, covariance, centers
        model.set_num_classes(3)
        model.zero_grad()
        total_loss(model.losses(features, torch.arange(3)), LOSS_WEIGHTS, stage).backward()
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        assert trained
        without = [name for name, value in trained.items() if value.grad is None]
        assert without == [], (prior, covariance, centers, stage)

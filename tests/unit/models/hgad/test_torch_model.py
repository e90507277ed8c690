# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the whole model: its scores, its classes, and that nothing but the image decides a score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from anomalib_hgad.models.hgad.calibration import NormalScores
from anomalib_hgad.models.hgad.loss import HgadLosses, hgad_losses
from anomalib_hgad.models.hgad.torch_model import HgadModel

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
    model = HgadModel("resnet18", {"layer2": scales}, SIZE, pre_trained=False, **arguments).eval()
    for prior in model.priors:
        nn.init.normal_(prior.class_logits)
        nn.init.normal_(prior.center_logits)
    return model


def set_constants(model: HgadModel) -> None:
    """Constants of the scores from random images."""
    scores = NormalScores()
    classes = torch.arange(3 * model.num_classes) % model.num_classes
    readings = model.read(model.encoder(torch.randn(len(classes), 3, *SIZE)))
    scores.add(model.level_scores(readings, classes.unsqueeze(-1)), classes)
    model.calibration.update(scores, scores, model.anomaly_map_generator)


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
    """a by class, e, and the most likely class of the image."""
    model = make_model()
    images = torch.randn(4, 3, *SIZE)
    readings = model.read(model.encoder(images))
    (level,) = model.level_scores(readings, torch.arange(3).expand(4, 3))
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
    torch.testing.assert_close(level.log_likelihoods.double(), torch.stack(of_classes, dim=-1), rtol=1e-4, atol=1e-5)
    entropy = Categorical(logits=energies).entropy()
    torch.testing.assert_close(level.negative_entropy.double(), -entropy, rtol=1e-3, atol=1e-4)
    assert level.grid == (8, 8)
    assert torch.equal(readings[0].class_logits.argmax(dim=-1), log_joint.sum(dim=1).argmax(dim=-1))


def test_single_gaussian_is_the_standard_normal() -> None:
    """CFLOW-AD: log N(z; 0, I) + log |det J|, per dimension, whatever the number of classes asked for."""
    model = make_model(prior="single_gaussian", num_classes=5)
    images = torch.randn(2, 3, *SIZE)
    (level,) = model.level_scores(model.read(model.encoder(images)), torch.zeros(2, 1, dtype=torch.int64))
    with torch.no_grad():
        latents = model.flows[0](model.encoder(images)[0])
    expected = (Normal(0.0, 1.0).log_prob(latents.z).sum(dim=-1) + latents.log_det) / 128
    torch.testing.assert_close(level.log_likelihoods, expected.unsqueeze(-1), rtol=1e-4, atol=1e-5)
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
    (level,) = model.level_scores(model.read(model.encoder(images)), torch.zeros(2, 1, dtype=torch.int64))
    model.calibration.max_log_likelihood.fill_(level.log_likelihoods.max())
    normality = (level.log_likelihoods - level.log_likelihoods.max()).exp().view(2, 1, 8, 8)
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


def test_an_image_is_scored_under_its_most_probable_classes() -> None:
    """Of many equally likely classes, five count; a class beyond them changes nothing."""
    model = make_model(num_classes=9)
    set_constants(model)
    images = torch.randn(1, 3, *SIZE)
    posterior = model.predict(images)[0].class_posterior[0]
    model.calibration.location[posterior.argsort()[:4]] = 1e6
    assert model.predict(images)[0].pred_score.abs().item() < 1e4
    model.calibration.location[posterior.argmax()] = 1e6
    assert model.predict(images)[0].pred_score.abs().item() > 1e4


def test_given_class_is_that_of_each_image(model: HgadModel) -> None:
    images = torch.randn(3, 3, *SIZE)
    _, mixed = model.predict(images, torch.tensor([2, 0, 1]))
    for row, y in enumerate((2, 0, 1)):
        _, same = model.predict(images, torch.full((3,), y))
        torch.testing.assert_close(mixed.pred_score[row], same.pred_score[row])
    _, others = model.predict(images, torch.tensor([0, 1, 2]))
    assert (mixed.pred_score - others.pred_score).abs().min() > 1e-3


def test_image_score_is_the_largest_of_its_map(model: HgadModel) -> None:
    images = torch.randn(3, 3, *SIZE)
    for prediction in model.predict(images, torch.tensor([0, 1, 2])):
        np.testing.assert_array_equal(prediction.pred_score, prediction.anomaly_map.numpy().reshape(3, -1).max(axis=1))


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
    fresh = HgadModel("resnet18", {"layer2": [1.0, 0.5]}, SIZE, pre_trained=False, num_classes=5, num_centers=2)
    for own, other in zip(model.priors, fresh.priors, strict=True):
        torch.testing.assert_close(own.class_centers, other.class_centers)
        assert own.center_offsets.shape == (5, 1, 128)
        assert (own.class_logits == 0).all()
    for name, constants in fresh.calibration.state_dict().items():
        assert torch.equal(model.calibration.state_dict()[name], constants)
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
    assert prediction.pred_score.item() == prediction.anomaly_map.max().item()


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


def test_score_is_that_under_the_five_most_probable_classes_by_their_shares() -> None:
    """Their probabilities sum to 0.96; the class of 0.04 counts for nothing."""
    model = blind_model(SHARES)
    model.calibration.location.copy_(torch.tensor([5.0, 1.0, 4.0, 2.0, 1000.0, 3.0]))
    model.calibration.spread.copy_(torch.tensor([2.0, 0.5, 2.0, 1.0, 1000.0, 1.0]))
    location = (0.4 * 1 + 0.25 * 2 + 0.15 * 3 + 0.1 * 4 + 0.06 * 5) / 0.96
    spread = (0.4 * 0.5 + 0.25 * 1 + 0.15 * 1 + 0.1 * 2 + 0.06 * 2) / 0.96
    entropy_map = 2 * (1 - 1 / 6)
    prediction, _ = model.predict(torch.randn(1, 3, *SIZE))
    assert prediction.pred_score.item() == pytest.approx((entropy_map - location) / spread, rel=1e-3)


def test_entropy_counts_from_the_largest_of_each_class_and_level() -> None:
    """S_e = 2 - exp(-ln 3 - e_max) of both levels, with e_max for the normalities that are written down."""
    model = blind_model((0.5, 0.3, 0.2))
    normalities = torch.tensor([[0.5, 0.75], [0.4, 0.6], [0.9, 0.8]])
    model.calibration.max_negative_entropy.copy_(-math.log(3) - normalities.log())
    inferred, given = model.predict(torch.randn(3, 3, *SIZE), torch.tensor([0, 1, 2]))
    for prediction, expected in ((given, [0.75, 1.0, 0.3]), (inferred, [0.5 * 0.75 + 0.3 * 1.0 + 0.2 * 0.3] * 3)):
        maps = torch.tensor(expected).view(3, 1, 1, 1).expand(3, 1, *SIZE)
        torch.testing.assert_close(prediction.anomaly_map, maps, rtol=1e-3, atol=1e-4)

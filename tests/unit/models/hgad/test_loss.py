# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the losses against the formulas in NumPy, and of what each of them trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from anomalib_hgad.models.hgad.loss import (
    HgadLosses,
    class_log_likelihood,
    hgad_losses,
    mutual_information_loss,
    negative_entropy,
    total_loss,
)
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture

pytestmark = pytest.mark.usefixtures("seeded")

SIZES = pytest.mark.parametrize(("classes", "centers", "dim"), [(3, 4, 5), (1, 3, 4), (4, 1, 2), (1, 1, 3), (7, 2, 6)])
IMAGES, POSITIONS = 4, 6


def random_prior(classes: int, centers: int, dim: int) -> HierarchicalGaussianMixture:
    """A mixture in float64, all of whose parameters are random."""
    prior = HierarchicalGaussianMixture(classes, centers, dim).double()
    for parameter in prior.parameters():
        parameter.data.copy_(torch.randn_like(parameter))
    return prior


def random_rows(classes: int, dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents (B, n, D), log-determinants (B, n) and classes (B,)."""
    z = torch.randn(IMAGES, POSITIONS, dim, dtype=torch.float64)
    log_det = 5 * torch.randn(IMAGES, POSITIONS, dtype=torch.float64)
    return z, log_det, torch.arange(IMAGES).flip(0) % classes


def losses_by_hand(
    prior: HierarchicalGaussianMixture, z: np.ndarray, log_det: np.ndarray, y: np.ndarray, smoothing: float
) -> HgadLosses:
    """Eq. 6, 8, 9, 10 and CFLOW's form, row by row."""
    mu, delta, psi, psi_centers = (
        parameter.detach().numpy()
        for parameter in (prior.class_centers, prior.center_offsets, prior.class_logits, prior.center_logits)
    )
    classes, dim = mu.shape
    terms = []
    for row, log_jacobian, label in zip(z, log_det, y, strict=True):
        energies = np.array([-np.sum((row - mu[k]) ** 2) / 2 for k in range(classes)])
        log_p = log_softmax(psi)
        inter = -(logsumexp(energies + log_p) + log_jacobian) / dim
        smoothed = np.full(classes, smoothing / classes)
        smoothed[label] += 1 - smoothing
        information = -np.sum(smoothed * (log_softmax(energies + log_p) - log_p))
        log_posterior = log_softmax(energies)
        entropy = -np.sum(np.exp(log_posterior) * log_posterior)
        offsets = np.concatenate([np.zeros((1, dim)), delta[label]])
        own = logsumexp(-0.5 * ((row - mu[label] - offsets) ** 2).sum(1) + log_softmax(psi_centers[label]))
        intra = -(own + log_jacobian) / dim
        log_likelihood = -dim / 2 * np.log(2 * np.pi) + own + log_jacobian
        likelihood = np.log1p(np.exp(-log_likelihood / dim))
        terms.append((inter, information, entropy, intra, likelihood))
    return HgadLosses(*np.mean(terms, axis=0))


@SIZES
@pytest.mark.parametrize("smoothing", [0.02, 0.0, 0.3])
def test_losses_equal_the_formulas(classes: int, centers: int, dim: int, smoothing: float) -> None:
    prior = random_prior(classes, centers, dim)
    z, log_det, y = random_rows(classes, dim)
    rows = z.flatten(0, 1), log_det.flatten(), y.repeat_interleave(POSITIONS)
    expected = losses_by_hand(prior, *(tensor.numpy() for tensor in rows), smoothing)
    actual = hgad_losses(prior, z, log_det, y, label_smoothing=smoothing)
    for name, loss, reference in zip(HgadLosses._fields, actual, expected, strict=True):
        assert loss.item() == pytest.approx(reference, abs=1e-10), name


def test_labels_are_smoothed_by_two_hundredths() -> None:
    prior = random_prior(4, 2, 3)
    arguments = random_rows(4, 3)
    assert hgad_losses(prior, *arguments) == hgad_losses(prior, *arguments, label_smoothing=0.02)


def test_one_class_has_neither_entropy_nor_mutual_information() -> None:
    losses = hgad_losses(random_prior(1, 3, 4), *random_rows(1, 4))
    assert losses.entropy.item() == 0
    assert losses.mutual_information.item() == pytest.approx(0, abs=1e-12)


def test_mutual_information_by_hand() -> None:
    """Two classes, priors 1/4 and 3/4, energies 0: the posterior is the prior, and nothing is learnt from z."""
    log_priors = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    energies = torch.zeros(1, 2, dtype=torch.float64)
    assert mutual_information_loss(energies, log_priors, torch.tensor([0]), 0.02).item() == pytest.approx(0)
    # Energies ln 3 and 0: the posterior is 1/2, 1/2; the gains are ln 2 and ln(2/3), the labels 0.9 and 0.1.
    energies[0, 0] = np.log(3)
    expected = -(0.9 * np.log(2) + 0.1 * np.log(2 / 3))
    assert mutual_information_loss(energies, log_priors, torch.tensor([0]), 0.2).item() == pytest.approx(expected)


def test_negative_entropy_by_hand() -> None:
    energies = torch.tensor([[0.0, 0, 0, 0], [0, -1e4, -1e4, -1e4], [np.log(3), 0, -1e4, -1e4]], dtype=torch.float64)
    expected = [-np.log(4), 0, 0.75 * np.log(0.75) + 0.25 * np.log(0.25)]
    np.testing.assert_allclose(negative_entropy(energies).numpy(), expected, atol=1e-12)


def test_log_likelihood_is_that_of_the_standard_normal() -> None:
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=1) + 0.7
    actual = class_log_likelihood(-0.5 * z.square().sum(dim=1), torch.tensor(0.7), dim=3)
    torch.testing.assert_close(actual, expected / 3)


def test_likelihood_loss_does_not_overflow() -> None:
    """log sigmoid of a very unlikely latent is its log-likelihood."""
    prior = HierarchicalGaussianMixture(1, 1, 2).double()
    prior.class_centers.data.zero_()
    z = torch.tensor([[[2000.0, 0.0]]], dtype=torch.float64)
    loss = hgad_losses(prior, z, torch.zeros(1, 1).double(), torch.tensor([0])).likelihood
    assert loss.item() == pytest.approx(1e6 + 0.5 * np.log(2 * np.pi), rel=1e-12)


TRAINED = {
    "inter": {"z", "log_det", "class_centers", "class_logits"},
    "mutual_information": {"z", "class_centers"},
    "entropy": {"z", "class_centers"},
    "intra": {"z", "log_det", "center_offsets", "center_logits"},
    "likelihood": {"z", "log_det", "center_offsets", "center_logits"},
}


@pytest.mark.parametrize(("term", "trained"), TRAINED.items())
def test_each_loss_trains_these_and_no_others(term: str, trained: set[str]) -> None:
    prior = random_prior(3, 4, 5)
    z, log_det, y = random_rows(3, 5)
    inputs = dict(prior.named_parameters(), z=z.requires_grad_(), log_det=log_det.requires_grad_())
    loss = getattr(hgad_losses(prior, z, log_det, y), term)
    gradients = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    for (name, tensor), gradient in zip(inputs.items(), gradients, strict=True):
        moved = gradient is not None and bool(gradient.abs().max() > 0)
        assert moved == (name in trained), name
        if moved and tensor.shape[0] == 3:
            assert (gradient.flatten(1).abs().amax(dim=1) > 0).all() if gradient.ndim > 1 else (gradient != 0).all()


@pytest.mark.parametrize("term", HgadLosses._fields)
def test_gradients_of_the_latents_are_those_of_finite_differences(term: str) -> None:
    prior = random_prior(3, 2, 4)
    z, log_det, y = random_rows(3, 4)
    torch.autograd.gradcheck(lambda x: getattr(hgad_losses(prior, x, log_det, y), term), z.requires_grad_())


def test_no_saved_tensor_holds_a_difference_for_every_row_and_centre() -> None:
    """(N, M, D) and (N, K, M) tensors would not fit for the paper's grid of 64 x 64."""
    classes, centers, dim, positions = 5, 4, 6, 256
    prior = random_prior(classes, centers, dim)
    z = torch.randn(2, positions, dim, dtype=torch.float64, requires_grad=True)
    sizes = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hgad_losses(prior, z, torch.zeros(2, positions).double(), torch.tensor([3, 0]))
    assert max(sizes) == 2 * positions * dim  # z itself


def test_total_by_hand() -> None:
    losses = HgadLosses(*(torch.tensor(value, requires_grad=True) for value in (1.0, 2.0, 4.0, 8.0, 16.0)))
    weights = {"likelihood": 0.5, "inter": 1.0, "mutual_information": 3.0, "entropy": 2.0, "intra": 10.0}
    assert total_loss(losses, weights, stage=1).item() == 1 + 3 * 2 + 2 * 4
    assert total_loss(losses, weights, stage=2).item() == 1 + 3 * 2 + 2 * 4 + 10 * 8 + 0.5 * 16
    total_loss(losses, weights, stage=1).backward()
    assert [term.grad for term in losses] == [1, 3, 2, 0, 0]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the mixture against torch.distributions, NumPy and numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture, gaussian_energies, initial_class_centers

pytestmark = pytest.mark.usefixtures("seeded")

SIZES = pytest.mark.parametrize(("classes", "centers", "dim"), [(3, 4, 5), (1, 3, 4), (4, 1, 2), (1, 1, 3), (6, 2, 3)])


def random_prior(classes: int, centers: int, dim: int) -> HierarchicalGaussianMixture:
    """A mixture in float64, all of whose parameters are random."""
    prior = HierarchicalGaussianMixture(classes, centers, dim).double()
    for parameter in prior.parameters():
        parameter.data.copy_(torch.randn_like(parameter))
    return prior


def mixture(centers: torch.Tensor, logits: torch.Tensor) -> MixtureSameFamily:
    """The mixture of unit Gaussians as PyTorch has it."""
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(centers, 1.0), 1))


def class_mixture(prior: HierarchicalGaussianMixture, index: int) -> MixtureSameFamily:
    """The mixture of a class: its main centre, and this plus each of the offsets."""
    main = prior.class_centers[index]
    centers = torch.stack([main, *(main + offset for offset in prior.center_offsets[index])])
    return mixture(centers, prior.center_logits[index])


def constant(dim: int) -> float:
    """What the log-densities leave out."""
    return 0.5 * dim * math.log(2 * math.pi)


@SIZES
@pytest.mark.parametrize("shape", [(7,), (2, 3)])
def test_class_energies_are_half_squared_distances(
    classes: int, centers: int, dim: int, shape: tuple[int, ...]
) -> None:
    prior = random_prior(classes, centers, dim)
    z = torch.randn(*shape, dim, dtype=torch.float64)
    difference = z.numpy()[..., None, :] - prior.class_centers.detach().numpy()
    expected = -0.5 * (difference**2).sum(-1)
    np.testing.assert_allclose(prior.class_energies(z).detach().numpy(), expected, atol=1e-10)


@SIZES
def test_mixture_over_the_classes_is_that_of_torch(classes: int, centers: int, dim: int) -> None:
    """Eq. 6."""
    prior = random_prior(classes, centers, dim)
    z = torch.randn(9, dim, dtype=torch.float64)
    log_density = torch.logsumexp(prior.class_energies(z) + prior.class_log_priors(), dim=-1) - constant(dim)
    expected = mixture(prior.class_centers, prior.class_logits).log_prob(z)
    torch.testing.assert_close(log_density, expected, rtol=0, atol=1e-10)


@SIZES
def test_mixture_within_a_class_is_that_of_torch(classes: int, centers: int, dim: int) -> None:
    """Eq. 10, for one class of each image and for several."""
    prior = random_prior(classes, centers, dim)
    images, positions = 5, 4
    z = torch.randn(images, positions, dim, dtype=torch.float64)
    y = torch.randint(classes, (images,))
    expected = torch.stack([class_mixture(prior, index).log_prob(z) for index in range(classes)], dim=-1)
    expected = expected + constant(dim)
    everything = torch.arange(classes).expand(images, classes)
    torch.testing.assert_close(prior.intra_class_log_density(z, everything), expected, rtol=0, atol=1e-10)
    actual = prior.intra_class_log_density(z, y.unsqueeze(-1))
    torch.testing.assert_close(actual, expected[torch.arange(images), :, y].unsqueeze(-1), rtol=0, atol=1e-10)


def test_class_priors_and_centre_weights_start_equal_and_the_first_centre_is_the_main_one() -> None:
    prior = HierarchicalGaussianMixture(4, 3, 8)
    torch.testing.assert_close(prior.class_log_priors(), torch.full((4,), -math.log(4)))
    assert (prior.center_logits == 0).all()
    torch.testing.assert_close(prior.centers()[:, 0], prior.class_centers.detach(), rtol=0, atol=0)


def test_offsets_start_standard_normal() -> None:
    offsets = HierarchicalGaussianMixture(5, 11, 200).center_offsets
    assert abs(offsets.mean().item()) < 0.04  # 4 standard errors of 10 000 numbers
    assert abs(offsets.std().item() - 1) < 0.03


def test_initial_centers_by_hand_where_classes_divide_channels() -> None:
    """K=2, D=6: s = 5 / sqrt(6); distance sqrt(2 * 3) * s = 5."""
    s = 5 / 6**0.5
    expected = torch.tensor([[s, 0, s, 0, s, 0], [0, s, 0, s, 0, s]])
    torch.testing.assert_close(initial_class_centers(2, 6), expected)
    assert torch.dist(*initial_class_centers(2, 6)).item() == pytest.approx(5)


def test_initial_centers_by_hand_where_they_do_not() -> None:
    """K=3, D=5: one channel each, s = 5 / sqrt(3), and the last two channels are not used."""
    s = 5 / 3**0.5
    expected = torch.tensor([[s, 0, 0, 0, 0], [0, s, 0, 0, 0], [0, 0, s, 0, 0]])
    torch.testing.assert_close(initial_class_centers(3, 5), expected)


def test_initial_centers_by_hand_for_the_paper() -> None:
    """K=15, D=200: 13 channels each, floor(400 / 15) = 26, s = 5 / sqrt(26)."""
    centers = initial_class_centers(15, 200)
    expected = np.zeros((15, 200))
    for k in range(15):
        for turn in range(13):
            expected[k, k + 15 * turn] = 5 / 26**0.5
    np.testing.assert_allclose(centers.numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(torch.pdist(centers), torch.full((105,), 5.0))


@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (2, 3), (15, 272), (8, 8), (40, 200), (7, 20), (3, 5), (12, 20)])
def test_initial_centers_are_about_five_apart(classes: int, dim: int) -> None:
    """sqrt(2 floor(D/K)) 5 / sqrt(floor(2D/K)) is 5 or, where floor drops a half, no less than 5 sqrt(2/3)."""
    distances = torch.pdist(initial_class_centers(classes, dim))
    assert distances.min() >= 5 * (2 / 3) ** 0.5 - 1e-4
    assert distances.max() <= 5 + 1e-4


@pytest.mark.parametrize(
    ("classes", "dim", "lowest", "highest"),
    [(20, 8, 2.0, 8.0), (3, 2, 3.5, 7.5), (40, 16, 2.5, 7.5), (9, 8, 4.0, 6.0), (100, 16, 1.5, 7.5)],
)
def test_more_classes_than_channels_start_apart(classes: int, dim: int, lowest: float, highest: float) -> None:
    """The mean distance is 5. The bounds on single pairs leave slack around what many random starts give."""
    for _ in range(3):
        centers = initial_class_centers(classes, dim)
        distances = torch.pdist(centers)
        assert distances.mean().item() == pytest.approx(5, abs=1e-3)
        assert distances.min() > lowest
        assert distances.max() < highest
        norms = centers.norm(dim=1)
        torch.testing.assert_close(norms, norms[:1].expand(classes), rtol=1e-4, atol=0)  # no class is outermost
        # All directions are used alike: the frame C'C is a multiple of the identity.
        frame = centers.T @ centers
        torch.testing.assert_close(frame, torch.eye(dim) * frame.trace() / dim, rtol=0, atol=0.02 * frame.max().item())


def test_densities_stay_in_float32_under_autocast() -> None:
    prior = HierarchicalGaussianMixture(3, 4, 64)
    z, y = torch.randn(2, 5, 64), torch.tensor([[2, 1], [0, 2]])
    expected = prior.class_energies(z), prior.intra_class_log_density(z, y)
    with torch.autocast("cpu", torch.bfloat16):
        actual = prior.class_energies(z), prior.intra_class_log_density(z, y)
        of_half = prior.class_energies(z.bfloat16())
    for result, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(result, reference, rtol=0, atol=0)
    assert of_half.dtype == torch.float32
    torch.testing.assert_close(of_half, prior.class_energies(z.bfloat16().float()), rtol=0, atol=0)


def test_energies_in_float32_are_those_of_float64() -> None:
    """At the paper's sizes, where the norms of z and of the centres are some 200 and their distances from 0 to 700."""
    prior = HierarchicalGaussianMixture(15, 10, 200)
    main = prior.centers().flatten(0, 1).detach()
    z = torch.cat((torch.randn(500, 200), main + 1e-3 * torch.randn_like(main)))
    exact = -0.5 * (z.double().unsqueeze(1) - main.double()).square().sum(dim=-1)
    torch.testing.assert_close(gaussian_energies(z, main).double(), exact, rtol=1e-5, atol=5e-4)


def test_energies_of_distant_latents_are_never_positive() -> None:
    """Where the norms cancel in float32, ||z - mu||^2 must not turn negative."""
    prior = HierarchicalGaussianMixture(3, 2, 16)
    prior.class_centers.data.mul_(1e4)
    assert (prior.class_energies(prior.class_centers.detach().repeat(50, 1)) <= 0).all()


@pytest.mark.parametrize("name", ["num_classes", "num_centers", "dim"])
@pytest.mark.parametrize("value", [0, -3])
def test_bad_arguments(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"Expected {name} >= 1, got {value}"):
        HierarchicalGaussianMixture(**{"num_classes": 2, "num_centers": 2, "dim": 4, name: value})

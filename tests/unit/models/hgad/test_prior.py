# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the mixture against torch.distributions, NumPy and numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from anomalib_hgad.models.hgad.gaussians import gaussian_energies
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture, initial_class_centers

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
    with pytest.raises(ValueError, match=f"expected 1 <= {name} < inf, got {value}"):
        HierarchicalGaussianMixture(**{"num_classes": 2, "num_centers": 2, "dim": 4, name: value})


def random_covariances(classes: int, dim: int) -> torch.Tensor:
    factors = torch.randn(classes, dim, 2 * dim, dtype=torch.float64)
    return factors @ factors.mT / (2 * dim)


def with_ridge(covariance: torch.Tensor) -> torch.Tensor:
    """The ridge by its definition: a hundredth of the mean variance."""
    return covariance + 0.03 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)


def full_prior(classes: int, centers: int, dim: int, covariances: torch.Tensor) -> HierarchicalGaussianMixture:
    """A mixture of full covariances in float64, all of whose parameters are random."""
    prior = HierarchicalGaussianMixture(classes, centers, dim, covariance="full").double()
    for parameter in prior.parameters():
        parameter.data.copy_(torch.randn_like(parameter))
    means = torch.randn(classes, dim, dtype=torch.float64)
    prior.set_gaussians(torch.arange(classes) * 10 + 100, means, covariances)
    assert torch.equal(prior.class_centers, means)
    return prior


@SIZES
def test_mixture_of_full_covariances_is_that_of_torch(classes: int, centers: int, dim: int) -> None:
    covariances = random_covariances(classes, dim)
    prior = full_prior(classes, centers, dim, covariances)
    z = torch.randn(3, 4, dim, dtype=torch.float64)
    expected = []
    for index in range(classes):
        main = prior.class_centers[index]
        of_class = torch.stack([main, *(main + offset for offset in prior.center_offsets[index])])
        gaussians = MultivariateNormal(of_class, with_ridge(covariances[index]))
        expected.append(
            MixtureSameFamily(Categorical(logits=prior.center_logits[index]), gaussians).log_prob(z) + constant(dim)
        )
    everything = torch.arange(classes).expand(3, classes)
    actual = prior.intra_class_log_density(z, everything)
    torch.testing.assert_close(actual, torch.stack(expected, dim=-1), rtol=0, atol=1e-9)


@SIZES
def test_mixture_that_moved_to_the_features_is_that_of_torch(classes: int, centers: int, dim: int) -> None:
    """Features are affine functions of latents, so they are Gaussian too, of every class and of all together."""
    covariances = random_covariances(classes, dim)
    prior = full_prior(classes, centers, dim, covariances)
    whitening, mean = torch.randn(dim, dim, dtype=torch.float64), torch.randn(dim, dtype=torch.float64)
    inverse = torch.linalg.inv(whitening)
    counts = torch.arange(classes, dtype=torch.float64) * 10 + 100
    shared = with_ridge((counts.view(-1, 1, 1) * covariances).sum(0) / counts.sum())
    x = torch.randn(3, 4, dim, dtype=torch.float64)
    within, main = [], []
    for index in range(classes):
        center = prior.class_centers[index]
        of_class = torch.stack([center, *(center + offset for offset in prior.center_offsets[index])])
        gaussians = MultivariateNormal(
            of_class @ inverse.T + mean, inverse @ with_ridge(covariances[index]) @ inverse.T
        )
        of_centers = MixtureSameFamily(Categorical(logits=prior.center_logits[index]), gaussians)
        within.append(of_centers.log_prob(x) + constant(dim))
        gaussian = MultivariateNormal(inverse @ center + mean, inverse @ shared @ inverse.T)
        main.append(gaussian.log_prob(x) + constant(dim))
    prior.move_to_features(whitening, mean)
    densities = prior.intra_class_log_density(x, torch.arange(classes).expand(3, classes))
    torch.testing.assert_close(densities, torch.stack(within, dim=-1), rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(prior.class_energies(x), torch.stack(main, dim=-1), rtol=1e-9, atol=1e-7)


@SIZES
def test_classes_share_their_mean_covariance_for_their_energies(classes: int, centers: int, dim: int) -> None:
    covariances = random_covariances(classes, dim)
    prior = full_prior(classes, centers, dim, covariances)
    counts = torch.arange(classes, dtype=torch.float64) * 10 + 100
    shared = with_ridge((counts.view(-1, 1, 1) * covariances).sum(0) / counts.sum())
    z = torch.randn(2, 5, dim, dtype=torch.float64)
    gaussians = [MultivariateNormal(center, shared) for center in prior.class_centers]
    expected = torch.stack([gaussian.log_prob(z) for gaussian in gaussians], dim=-1) + constant(dim)
    torch.testing.assert_close(prior.class_energies(z), expected, rtol=0, atol=1e-9)


def test_identity_until_the_gaussians_are_set() -> None:
    full, identity = (HierarchicalGaussianMixture(3, 2, 4, covariance=kind).double() for kind in ("full", "identity"))
    identity.load_state_dict({name: value for name, value in full.state_dict().items() if "whitening" not in name})
    z, classes = torch.randn(2, 5, 4, dtype=torch.float64), torch.tensor([[0, 2], [1, 1]])
    torch.testing.assert_close(full.class_energies(z), identity.class_energies(z))
    torch.testing.assert_close(full.intra_class_log_density(z, classes), identity.intra_class_log_density(z, classes))


@pytest.mark.parametrize("vectors", [1, 3])
def test_class_of_fewer_vectors_than_channels(vectors: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its covariance is singular: the ridge makes a density of it, and the log says so."""
    rows = torch.randn(vectors, 6, dtype=torch.float64)
    covariance = torch.cov(rows.T, correction=0) if vectors > 1 else torch.zeros(6, 6, dtype=torch.float64)
    prior = HierarchicalGaussianMixture(2, 1, 6, covariance="full").double()
    prior.set_gaussians(
        torch.tensor([50, vectors]),
        torch.stack([torch.zeros(6, dtype=torch.float64), rows.mean(0)]),
        torch.stack([torch.eye(6, dtype=torch.float64), covariance]),
    )
    assert f"fewer vectors than channels (6): 1 ({vectors})" in caplog.text
    z = torch.randn(1, 4, 6, dtype=torch.float64)
    ridge = max(0.03 * float(covariance.diagonal().mean()), 1e-6)
    inverse = np.linalg.inv(covariance.numpy() + ridge * np.eye(6))
    difference = (z[0] - rows.mean(0)).numpy()
    expected = -0.5 * np.einsum("nd,de,ne->n", difference, inverse, difference) + 0.5 * np.linalg.slogdet(inverse)[1]
    actual = prior.intra_class_log_density(z, torch.tensor([[1]]))[0, :, 0].detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-8)


def test_class_without_vectors_takes_the_mean_covariance() -> None:
    prior = HierarchicalGaussianMixture(2, 1, 3, covariance="full").double()
    before = prior.class_centers[1].clone()
    covariances = torch.stack([2 * torch.eye(3, dtype=torch.float64), torch.full((3, 3), 9.0, dtype=torch.float64)])
    prior.set_gaussians(torch.tensor([40, 0]), torch.ones(2, 3, dtype=torch.float64), covariances)
    assert torch.equal(prior.class_centers[1], before)
    torch.testing.assert_close(prior.class_whitening[1], torch.eye(3, dtype=torch.float64) / math.sqrt(2.06))


def test_covariances_that_cannot_be() -> None:
    prior = HierarchicalGaussianMixture(1, 1, 2, covariance="full")
    with pytest.raises(ValueError, match="Expected vectors of at least one class, got none"):
        prior.set_gaussians(torch.tensor([0]), torch.zeros(1, 2), torch.eye(2).expand(1, 2, 2))


def test_identity_takes_the_means_alone() -> None:
    prior, means = HierarchicalGaussianMixture(2, 1, 3), torch.randn(2, 3)
    prior.set_gaussians(torch.tensor([9, 4]), means, torch.eye(3).repeat(2, 1, 1) * 5)
    assert torch.equal(prior.class_centers, means)
    z = torch.randn(1, 4, 3)
    expected = -0.5 * (z - means[1]).square().sum(-1)
    torch.testing.assert_close(prior.intra_class_log_density(z, torch.tensor([[1]]))[..., 0], expected)


def test_full_covariances_in_half_precision() -> None:
    """Under autocast the densities are those of float32."""
    covariances = random_covariances(3, 8)
    prior = full_prior(3, 2, 8, covariances).float()
    z, classes = torch.randn(2, 5, 8) + 100, torch.tensor([[0, 2], [1, 1]])
    expected = prior.intra_class_log_density(z, classes), prior.class_energies(z)
    with torch.autocast("cpu", torch.bfloat16):
        actual = prior.intra_class_log_density(z, classes), prior.class_energies(z)
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


def empirical(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts, means and covariances of vectors of the classes."""
    return (
        torch.tensor([len(of_class) for of_class in rows], dtype=torch.float64),
        torch.stack([of_class.mean(dim=0) for of_class in rows]),
        torch.stack([torch.cov(of_class.T, correction=0) for of_class in rows]),
    )


@pytest.mark.parametrize("same", [True, False], ids=["fitted vectors", "other vectors"])
@pytest.mark.parametrize(("classes", "dim"), [(4, 3), (2, 6), (1, 2)])
def test_mean_log_densities_are_the_means_of_torchs_over_the_vectors(classes: int, dim: int, same: bool) -> None:
    """An expectation depends on the vectors' moments alone."""
    prior = HierarchicalGaussianMixture(classes, 1, dim, covariance="full").double()
    fitted, others = (
        [
            2 * torch.randn(dim).double() + torch.randn(300, dim).double() @ torch.randn(dim, dim).double()
            for _ in range(classes)
        ]
        for _ in range(2)
    )
    counts, means, covariances = empirical(fitted)
    prior.set_gaussians(counts, means, covariances)
    rows = fitted if same else others
    actual = prior.mean_log_densities(*empirical(rows)[1:])
    for y in range(classes):
        for k in range(classes):
            log_densities = MultivariateNormal(means[k], with_ridge(covariances[k])).log_prob(rows[y])
            assert actual[y, k].item() == pytest.approx(log_densities.mean().item() + constant(dim), rel=1e-9)
    if same:
        assert actual.argmax(dim=1).tolist() == list(range(classes)), "its own class fits a class best"

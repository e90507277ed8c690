# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Losses of one feature level (HGAD, Eq. 6 to 11), all to be minimised and all means over the positions of all images.

Dimensions: B images, n positions of an image, K classes, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch.nn import functional as F

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture

LOSS_WEIGHTS: Mapping[str, float] = {
    "inter": 1.0,
    "mutual_information": 100.0,
    "entropy": 1.0,
    "intra": 1.0,
    "likelihood": 1.0,
}
"""Weights of the losses by their names, see :class:`HgadLosses`: lambda_1, lambda_2, and 1 for the others (Eq. 11)."""

FIRST_STAGE_LOSSES = ("inter", "mutual_information", "entropy")
"""Losses of the first stage; the second stage has all."""


class HgadLosses(NamedTuple):
    """The loss terms of a level, scalars.

    Attributes:
        inter: L_g, Eq. 6: negative log-likelihood under the mixture over classes, in nats per dimension.
        mutual_information: L_mi, Eq. 8: negative mutual information of latent and class, in nats.
        entropy: L_e, Eq. 9: entropy of the classes given the latent, in nats.
        intra: L_in, Eq. 10: negative log-likelihood under the true class's own mixture, in nats per dimension.
        likelihood: L_z, -log sigmoid of the log-likelihood per dimension under the true class (CFLOW-AD's form).
    """

    inter: torch.Tensor
    mutual_information: torch.Tensor
    entropy: torch.Tensor
    intra: torch.Tensor
    likelihood: torch.Tensor


def class_log_likelihood(log_density: torch.Tensor, log_det: torch.Tensor, dim: int) -> torch.Tensor:
    """a = log p(x|y) / D by the change of variables.

    Args:
        log_density: Log-density of the latent without its (2 pi) constant, in nats.
        log_det: log |det J| of the flow, in nats, of a shape that broadcasts with ``log_density``.
        dim: D.

    Returns:
        Log-likelihood of the features in nats per dimension.
    """
    return (log_density + log_det) / dim - 0.5 * math.log(2 * math.pi)


def negative_entropy(class_energies: torch.Tensor) -> torch.Tensor:
    """e = sum_k softmax(l)_k log_softmax(l)_k, the negative entropy of the classes given the latent (Eq. 9).

    Args:
        class_energies: l, shape (..., K).

    Returns:
        Negative entropies in nats, at most 0, shape (...).
    """
    log_posterior = class_energies.log_softmax(dim=-1)
    return (log_posterior.exp() * log_posterior).sum(dim=-1)


def mutual_information_loss(
    class_energies: torch.Tensor,
    class_log_priors: torch.Tensor,
    class_index: torch.Tensor,
    label_smoothing: float,
) -> torch.Tensor:
    """Eq. 8 with smoothed labels: -sum_k y~_k [ log_softmax_k(l + log p) - log p(k) ], averaged.

    Args:
        class_energies: l, shape (..., K).
        class_log_priors: log p, shape (K,). Detached: this loss does not train the priors.
        class_index: True classes, shape (...).
        label_smoothing: Share of y~ spread evenly over all classes.

    Returns:
        Scalar in nats.
    """
    log_priors = class_log_priors.detach()
    gains = (class_energies + log_priors).log_softmax(dim=-1) - log_priors
    true_gain = gains.gather(-1, class_index.unsqueeze(-1)).squeeze(-1)
    return -((1 - label_smoothing) * true_gain + label_smoothing * gains.mean(dim=-1)).mean()


def hgad_losses(
    prior: HierarchicalGaussianMixture,
    z: torch.Tensor,
    log_det: torch.Tensor,
    class_index: torch.Tensor,
    label_smoothing: float = 0.02,
) -> HgadLosses:
    """Compute all loss terms of a level.

    Args:
        prior: Mixture of the level.
        z: Latents, shape (B, n, D).
        log_det: log |det J| of the flow in nats, shape (B, n).
        class_index: True classes of the images, int64, shape (B,).
        label_smoothing: Share of the label spread evenly over all classes in the mutual information.

    Returns:
        The terms, unweighted.
    """
    dim = z.shape[-1]
    class_energies = prior.class_energies(z)
    class_log_priors = prior.class_log_priors()
    mixture_log_density = torch.logsumexp(class_energies + class_log_priors, dim=-1)
    intra_class_log_density = prior.intra_class_log_density(z, class_index.unsqueeze(-1)).squeeze(-1)
    row_class = class_index.unsqueeze(-1).expand_as(log_det)
    return HgadLosses(
        inter=-(mixture_log_density + log_det).mean() / dim,
        mutual_information=mutual_information_loss(class_energies, class_log_priors, row_class, label_smoothing),
        entropy=-negative_entropy(class_energies).mean(),
        intra=-(intra_class_log_density + log_det).mean() / dim,
        likelihood=-F.logsigmoid(class_log_likelihood(intra_class_log_density, log_det, dim)).mean(),
    )


def checked_loss_weights(given: Mapping[str, float] | None) -> dict[str, float]:
    """Return the weights of all losses.

    Args:
        given: Weights that differ from the paper's, by the names of :data:`LOSS_WEIGHTS`.

    Returns:
        The weights.

    Raises:
        ValueError: If there is no loss of such a name, or if a weight is negative or not finite.
    """
    given = dict(given or {})
    if unknown := sorted(given.keys() - LOSS_WEIGHTS.keys()):
        msg = f"loss_weights: there is no loss {', '.join(unknown)}. Expected some of {', '.join(LOSS_WEIGHTS)}."
        raise ValueError(msg)
    check_range("0 <= {} < inf", **{f"loss_weights[{name!r}]": weight for name, weight in given.items()})
    return dict(LOSS_WEIGHTS) | given


def total_loss(losses: HgadLosses, weights: Mapping[str, float], stage: int) -> torch.Tensor:
    """Weighted sum of the losses, Eq. 11.

    Args:
        losses: The terms, summed over the levels.
        weights: Weight of each term by its name.
        stage: 1, with :data:`FIRST_STAGE_LOSSES` alone, or 2.

    Returns:
        Scalar.
    """
    # The others get the weight 0 instead of being left out: with several processes DDP waits for a gradient of every
    # parameter, and some parameters have one from those losses only.
    terms = [
        (weights[name] if stage == 2 or name in FIRST_STAGE_LOSSES else 0.0) * loss
        for name, loss in losses._asdict().items()
    ]
    return torch.stack(terms).sum()

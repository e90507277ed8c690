# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What made a checkpoint, and whether it can be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anomalib_hgad.common.checks import plain
from anomalib_hgad.common.versions import installed_versions

EVALUATOR_PREFIX = "evaluator."
"""How the names of the metrics' constants begin in a checkpoint."""

VERSIONS_KEY = "hgad_versions"
SETTINGS_KEY = "hgad_score_settings"
"""Key of the settings that scores depend on. Those of Lightning have what a loader puts in their place."""

CHECKED_PACKAGES = ("anomalib-hgad", "anomalib")


def with_metrics_of(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state with another one's constants of the metrics, such as AUPRO's limit, which are under their numbers.

    Args:
        state: State of a model.
        other: State whose metrics count.
    """
    weights = {name: value for name, value in state.items() if not name.startswith(EVALUATOR_PREFIX)}
    return weights | {name: value for name, value in other.items() if name.startswith(EVALUATOR_PREFIX)}


def describe(checkpoint: dict[str, Any], settings: Mapping[str, object]) -> None:
    """Write into a checkpoint what made it.

    Args:
        checkpoint: The checkpoint.
        settings: The model's settings that scores depend on, as plain data.
    """
    checkpoint[VERSIONS_KEY] = installed_versions(CHECKED_PACKAGES)
    checkpoint[SETTINGS_KEY] = dict(settings)


def check_versions(checkpoint: dict[str, Any]) -> None:
    """Check that this installation can read a checkpoint.

    Args:
        checkpoint: The checkpoint.

    Raises:
        ValueError: If it was made by other minor versions of this package or of anomalib, or by neither.
    """
    if not {VERSIONS_KEY, SETTINGS_KEY} <= checkpoint.keys():
        msg = "Expected a checkpoint of a model of anomalib_hgad; this one does not say that it is one, and may be of "
        msg += "another model."
        raise ValueError(msg)
    made_with = {package: checkpoint[VERSIONS_KEY].get(package, "0.0 (not said)") for package in CHECKED_PACKAGES}
    here = installed_versions(CHECKED_PACKAGES)
    if any(_minor(made_with[package]) != _minor(here[package]) for package in CHECKED_PACKAGES):
        msg = f"The checkpoint was made with {_listed(made_with)}; installed are {_listed(here)}: install the versions "
        msg += "of the checkpoint, or train anew."
        raise ValueError(msg)


def check_settings(checkpoint: dict[str, Any], settings: Mapping[str, object]) -> None:
    """Check that a model's scores are made as those were that weights, scales and thresholds of a checkpoint are for.

    Args:
        checkpoint: The checkpoint.
        settings: The model's settings that scores depend on.

    Raises:
        ValueError: If some of them are others. The message names them.
    """
    made_with = checkpoint[SETTINGS_KEY]
    others = [
        f"{name}={made_with.get(name)!r} there and {value!r} here"
        for name, value in settings.items()
        if plain(made_with.get(name)) != plain(value)
    ]
    if others:
        msg = f"Scores of the checkpoint depend on settings that the model has otherwise: {', '.join(others)}. Give "
        msg += "the model the checkpoint's settings, or train anew."
        raise ValueError(msg)


def check_weights(checkpoint: dict[str, Any], module: nn.Module) -> None:
    """Check that the weights of a checkpoint are those of a model of the same settings.

    Args:
        checkpoint: The checkpoint.
        module: The model, whose weights have names that begin with ``model.``.

    Raises:
        ValueError: If weights are missing, unknown or of another shape.
    """
    here, there = (
        {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith("model.")}
        for state in (module.state_dict(), checkpoint["state_dict"])
    )
    wrong = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if wrong:
        msg = f"The checkpoint does not fit the model: {len(wrong)} tensors are missing, unknown or of another shape, "
        msg += f"such as {wrong[0]} ({there.get(wrong[0], 'none')} there, {here.get(wrong[0], 'none')} here). It is "
        msg += "damaged or of another model: take another checkpoint, or train anew."
        raise ValueError(msg)


def _minor(number: str) -> list[str]:
    return number.split(".")[:2]


def _listed(versions: dict[str, str]) -> str:
    return " and ".join(f"{package} {versions[package]}" for package in CHECKED_PACKAGES)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Versions and settings that a checkpoint was made with, and checks that it can be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anomalib_hgad.common.checks import plain
from anomalib_hgad.common.versions import installed_versions

EVALUATOR_PREFIX = "evaluator."
"""Prefix of the metrics' constants in a checkpoint."""

VERSIONS_KEY = "hgad_versions"
SETTINGS_KEY = "hgad_score_settings"
"""Key of the settings that scores depend on. A loader may override Lightning's hyperparameters, but not these."""

CHECKED_PACKAGES = ("anomalib-hgad", "anomalib")


def with_metrics_of(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replace the constants of the metrics in a state, such as AUPRO's limit, by those of another state.

    Args:
        state: State of a model.
        other: State whose metrics are used.
    """
    weights = {name: value for name, value in state.items() if not name.startswith(EVALUATOR_PREFIX)}
    return weights | {name: value for name, value in other.items() if name.startswith(EVALUATOR_PREFIX)}


def describe(checkpoint: dict[str, Any], settings: Mapping[str, object]) -> None:
    """Write the versions and settings that a checkpoint was made with into it.

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
        ValueError: If it was made by another minor version of this package or of anomalib, or has no versions.
    """
    if not {VERSIONS_KEY, SETTINGS_KEY} <= checkpoint.keys():
        msg = "Expected a checkpoint of a model of anomalib_hgad; this one lacks the versions and settings of one, and "
        msg += "may be of another model."
        raise ValueError(msg)
    made_with = {package: checkpoint[VERSIONS_KEY].get(package, "0.0 (unknown)") for package in CHECKED_PACKAGES}
    here = installed_versions(CHECKED_PACKAGES)
    if any(_minor(made_with[package]) != _minor(here[package]) for package in CHECKED_PACKAGES):
        msg = f"The checkpoint was made with {_listed(made_with)}; installed are {_listed(here)}: install the versions "
        msg += "of the checkpoint, or train again."
        raise ValueError(msg)


def check_settings(checkpoint: dict[str, Any], settings: Mapping[str, object]) -> None:
    """Check that a model computes scores with the settings that the checkpoint was made with.

    Args:
        checkpoint: The checkpoint.
        settings: The model's settings that scores depend on.

    Raises:
        ValueError: If some of them differ. The message names them.
    """
    made_with = checkpoint[SETTINGS_KEY]
    others = [
        f"{name}={made_with.get(name)!r} in the checkpoint and {value!r} in the model"
        for name, value in settings.items()
        if plain(made_with.get(name)) != plain(value)
    ]
    if others:
        msg = f"The checkpoint was made with other settings that scores depend on: {', '.join(others)}. Give "
        msg += "the model the checkpoint's settings, or train again."
        raise ValueError(msg)


def check_weights(checkpoint: dict[str, Any], module: nn.Module) -> None:
    """Check that the weights of a checkpoint have the names and shapes of the model's.

    Args:
        checkpoint: The checkpoint.
        module: The model, whose weights have names that begin with ``model.``.

    Raises:
        ValueError: If weights are missing, unknown or have another shape.
    """
    here, there = (
        {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith("model.")}
        for state in (module.state_dict(), checkpoint["state_dict"])
    )
    wrong = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if wrong:
        msg = f"The checkpoint does not fit the model: {len(wrong)} tensors are missing, unknown or of another shape, "
        msg += f"such as {wrong[0]} (checkpoint: {there.get(wrong[0], 'none')}, model: {here.get(wrong[0], 'none')}). "
        msg += "It is damaged or of another model: use another checkpoint, or train again."
        raise ValueError(msg)


def _minor(number: str) -> list[str]:
    return number.split(".")[:2]


def _listed(versions: dict[str, str]) -> str:
    return " and ".join(f"{package} {versions[package]}" for package in CHECKED_PACKAGES)

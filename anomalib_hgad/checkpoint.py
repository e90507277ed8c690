# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint says of the model besides its weights."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

CLASS_NAMES = "hgad_class_names"
VERSIONS = "hgad_versions"
PACKAGES = ("anomalib-hgad", "anomalib")


def describe(checkpoint: dict[str, Any], class_names: Sequence[str]) -> None:
    """Write the classes and versions of a model into its checkpoint.

    Args:
        checkpoint: The checkpoint.
        class_names: Names of the classes.
    """
    checkpoint[CLASS_NAMES] = list(class_names)
    checkpoint[VERSIONS] = {package: version(package) for package in PACKAGES}


def described_class_names(checkpoint: dict[str, Any]) -> list[str]:
    """Names of the classes of a checkpoint that this installation can read.

    Args:
        checkpoint: The checkpoint.

    Returns:
        Names of the classes.

    Raises:
        ValueError: If it is of another model, or was made by other minor versions of this package or of anomalib.
    """
    if CLASS_NAMES not in checkpoint:
        msg = "Expected a checkpoint of anomalib_hgad.Hgad; this one is of another model."
        raise ValueError(msg)
    made_with = checkpoint.get(VERSIONS, dict.fromkeys(PACKAGES, "0.0 (not said)"))
    here = {package: version(package) for package in PACKAGES}
    if any(_minor(made_with[package]) != _minor(here[package]) for package in PACKAGES):
        msg = f"The checkpoint was made with {_listed(made_with)}; installed are {_listed(here)}. Install the versions "
        msg += "of the checkpoint, or train anew."
        raise ValueError(msg)
    return list(checkpoint[CLASS_NAMES])


def _minor(number: str) -> list[str]:
    return number.split(".")[:2]


def _listed(versions: dict[str, str]) -> str:
    return " and ".join(f"{package} {versions[package]}" for package in PACKAGES)

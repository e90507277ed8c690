# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of what checkpoints say, and of those that cannot be read."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from anomalib_hgad.checkpoint import describe, described_class_names


def described() -> dict[str, Any]:
    checkpoint: dict[str, Any] = {}
    describe(checkpoint, ["bolt", "nut"])
    return checkpoint


def test_classes_come_back() -> None:
    assert described_class_names(described()) == ["bolt", "nut"]


def test_versions_of_the_same_minor_release_are_read() -> None:
    checkpoint = described()
    major, minor = version("anomalib").split(".")[:2]
    checkpoint["hgad_versions"]["anomalib"] = f"{major}.{minor}.999"
    assert described_class_names(checkpoint) == ["bolt", "nut"]


@pytest.mark.parametrize(("package", "other"), [("anomalib-hgad", "0.99.0"), ("anomalib", "1.2.0")])
def test_other_versions_are_named(package: str, other: str) -> None:
    checkpoint = described()
    checkpoint["hgad_versions"][package] = other
    message = f"made with .*{package} {other}.*; installed are .*{package} {version(package)}.*Install the versions"
    with pytest.raises(ValueError, match=message):
        described_class_names(checkpoint)


def test_checkpoint_that_does_not_say_is_refused() -> None:
    checkpoint = described()
    del checkpoint["hgad_versions"]
    with pytest.raises(ValueError, match=r"made with anomalib-hgad 0\.0 \(not said\)"):
        described_class_names(checkpoint)


def test_checkpoint_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="this one is of another model"):
        described_class_names({"state_dict": {}})

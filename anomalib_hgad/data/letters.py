# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names of folders with other letters than ASCII has, as 볼트, болт and Schräubchen."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from anomalib.data.utils import path as anomalib_path


def has_control_characters(path: str | Path) -> bool:
    """Whether a path has control characters, or bytes that are no text."""
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in str(path))


def composed(name: str) -> str:
    """A name with its letters and their marks in one (NFC): macOS takes them apart, keyboards do not."""
    return unicodedata.normalize("NFC", name)


def accept_all_letters() -> None:
    """Let anomalib read folders whose names have other letters than ASCII has.

    anomalib 2.7 refuses their paths in ``validate_path`` with "contains non-printable characters", for all datamodules
    and for folders to predict, though all that reads files takes them. What its test is called by takes its place.
    """
    anomalib_path.contains_non_printable_characters = has_control_characters

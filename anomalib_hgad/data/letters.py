# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Folder names with non-ASCII characters, such as 볼트, болт and Schräubchen."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from anomalib.data.utils import path as anomalib_path


def has_control_characters(path: str | Path) -> bool:
    """Whether a path has control characters, or bytes that are not text."""
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in str(path))


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC): macOS uses the decomposed form, keyboards do not."""
    return unicodedata.normalize("NFC", name)


def accept_all_letters() -> None:
    """Make anomalib accept folder names with non-ASCII characters.

    anomalib 2.7 rejects their paths in ``validate_path`` with "contains non-printable characters", for all datamodules
    and for folders to predict, although they can be read. This function replaces anomalib's test.
    """
    anomalib_path.contains_non_printable_characters = has_control_characters

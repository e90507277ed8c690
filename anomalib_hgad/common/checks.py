# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of settings that types alone do not check."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args


def check_share(**shares: float) -> None:
    """Check that settings are shares of a whole.

    Args:
        **shares: The settings by name.

    Raises:
        ValueError: If one is not from 0 to below 1.
    """
    for name, value in shares.items():
        if not 0 <= value < 1:
            msg = f"{name} is a share: expected 0 <= {name} < 1, got {value}."
            raise ValueError(msg)


def check_part(**parts: float) -> None:
    """Check that settings are parts of a whole, which may be all of it.

    Args:
        **parts: The settings by name.

    Raises:
        ValueError: If one is not above 0 and at most 1.
    """
    for name, value in parts.items():
        if not 0 < value <= 1:
            msg = f"{name} is a part of a whole: expected 0 < {name} <= 1, got {value}."
            raise ValueError(msg)


def check_choice(choices: Any, **settings: str) -> None:  # noqa: ANN401
    """Check that settings are among the values of a ``Literal``.

    Args:
        choices: The ``Literal``.
        **settings: The settings by name.

    Raises:
        ValueError: If one is not.
    """
    for name, value in settings.items():
        if value not in get_args(choices):
            msg = f"Expected {name} to be one of {', '.join(map(repr, get_args(choices)))}; got {value!r}."
            raise ValueError(msg)


def check_positive(**numbers: float) -> None:
    """Check that settings are above 0 and finite.

    Args:
        **numbers: The settings by name.

    Raises:
        ValueError: If one is not.
    """
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            msg = f"Expected {name} > 0{' and finite' if value > 0 else ''}, got {value}."
            raise ValueError(msg)


def check_not_negative(**numbers: float) -> None:
    """Check that settings are at least 0 and finite.

    Args:
        **numbers: The settings by name.

    Raises:
        ValueError: If one is not.
    """
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            msg = f"Expected {name} >= 0 and finite, got {value}."
            raise ValueError(msg)


def check_folder_names(of_what: str, names: Iterable[str]) -> None:
    """Check that names are names of folders too: none leads out of the folder of the results, or upsets a terminal.

    Args:
        of_what: What is named so, for the message.
        names: The names.

    Raises:
        ValueError: If one is no text, empty or ``..``, or has slashes, control characters or bytes that are no text.
    """
    for name in names:
        is_text = isinstance(name, str)  # a config may say 5
        unprintable = is_text and any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)
        if not is_text or unprintable or name in {"", ".."} or Path(name).name != name:
            msg = f"The name of {of_what} is the name of its folder as well: expected text without slashes and "
            msg += f"control characters, and not '..', got {name!a}. Rename it."
            raise ValueError(msg)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of settings that types alone do not check."""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

COMPARISONS = {"<": operator.lt, "<=": operator.le}


def check_range(bounds: str, /, **settings: float) -> None:
    """Check that settings are within bounds.

    Args:
        bounds: The bounds, such as ``"0 <= {} < 1"`` of a share, or ``"0 < {} < inf"``.
        **settings: The settings by name.

    Raises:
        ValueError: If one is not, or is no number.
    """
    low, above, _, below, high = bounds.split()
    for name, value in settings.items():
        if not (COMPARISONS[above](float(low), value) and COMPARISONS[below](value, float(high))):
            msg = f"{name} is out of range: expected {bounds.format(name)}, got {value}."
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

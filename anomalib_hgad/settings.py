# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of settings that types alone do not check."""

from __future__ import annotations

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
    """Check that settings are above 0.

    Args:
        **numbers: The settings by name.

    Raises:
        ValueError: If one is not.
    """
    for name, value in numbers.items():
        if value <= 0:
            msg = f"Expected {name} > 0, got {value}."
            raise ValueError(msg)

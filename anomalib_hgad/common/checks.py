# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of settings beyond their types."""

from __future__ import annotations

import operator
import unicodedata
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

COMPARISONS = {"<": operator.lt, "<=": operator.le}


def check_range(bounds: str, /, **settings: float) -> None:
    """Check that settings are within bounds.

    Args:
        bounds: The bounds, such as ``"0 <= {} < 1"`` for a fraction, or ``"0 < {} < inf"``.
        **settings: The settings by name.

    Raises:
        ValueError: If one is out of bounds or not a number.
    """
    low, above, _, below, high = bounds.split()
    for name, value in settings.items():
        if not (COMPARISONS[above](float(low), value) and COMPARISONS[below](value, float(high))):
            msg = f"{name} is out of range: expected {bounds.format(name)}, got {value}."
            raise ValueError(msg)


def check_types(function: Callable[..., object], arguments: Mapping[str, object], left_out: Iterable[str]) -> None:
    """Check arguments against the annotations of a function, as the command line does.

    Args:
        function: The function.
        arguments: Arguments of the call, by name.
        left_out: Arguments not to check, in addition to those of :func:`check_choice`.

    Raises:
        TypeError: If one has the wrong type.
    """
    for name, hint in _hints(function).items():
        value = arguments.get(name)
        if name not in arguments or name in left_out or get_origin(hint) is Literal:
            continue
        if not _is_of_type(value, hint, _parser(function, name)):
            expected = str(hint if get_args(hint) else hint.__name__).replace("collections.abc.", "")
            msg = f"{name} has the wrong type: expected {expected}, got {value!r}."
            raise TypeError(msg)


def _is_of_type(value: object, hint: Any, parser: ArgumentParser) -> bool:  # noqa: ANN401
    types = {hint, *get_args(hint)}
    if value is None or isinstance(value, bool):  # the parser takes them for no value and a number
        return type(value) in types
    try:
        parsed = parser.parse_object({"value": plain(value)}).value  # a copy: the parser writes into what it is given
    except ArgumentError:
        return False
    # The parser also converts strings, so that equality decides. NaN is not equal to itself, but its text is.
    return plain(parsed) == plain(value) or repr(plain(parsed)) == repr(plain(value))


@cache
def _hints(function: Callable[..., object]) -> dict[str, Any]:
    return get_type_hints(function)


@cache
def _parser(function: Callable[..., object], name: str) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=_hints(function)[name])
    return parser


def plain(value: object) -> object:
    """Copy a value, with all sequences and mappings in it, at any depth, as plain lists and dicts."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


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
    """Check that names can be folder names: none leads out of the results folder or breaks a terminal.

    Args:
        of_what: What has these names, for the message.
        names: The names.

    Raises:
        ValueError: If one is not a string, is empty or ``..``, or has slashes, control characters or undecodable bytes.
    """
    for name in names:
        is_text = isinstance(name, str)  # a config may say 5
        unprintable = is_text and any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)
        if not is_text or unprintable or name in {"", ".."} or Path(name).name != name:
            msg = f"The name of {of_what} is also the name of its folder: expected text without slashes and "
            msg += f"control characters, and not '..', got {name!a}. Rename it."
            raise ValueError(msg)

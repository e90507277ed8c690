# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the checks of settings."""

from __future__ import annotations

import math
import re

import pytest

from anomalib_hgad.common.checks import check_range, check_types


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ("0 <= {} < 1", [0, 0.0, 0.999], [-1e-9, 1, 1.0, math.inf, math.nan]),
        ("0 < {} <= 1", [1e-9, 1, 1.0], [0, -0.0, 1.0001, math.nan]),
        ("1 <= {} < inf", [1, 2.5, 1e300], [0, 0.999, math.inf, -math.inf, math.nan]),
    ],
)
def test_bounds_are_those_of_the_words(bounds: str, inside: list[float], outside: list[float]) -> None:
    check_range(bounds, **{f"a{index}": value for index, value in enumerate(inside)})
    for value in outside:
        with pytest.raises(
            ValueError, match=re.escape(f"b is out of range: expected {bounds.format('b')}, got {value}.")
        ):
            check_range(bounds, a=inside[0], b=value)


def example(
    size: int | tuple[int, int], name: str, scales: dict[str, list[float]], share: float | None, on: bool
) -> None:
    """A function of the types that models have."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("size", size) for size in (32, (32, 40), [32, 40])),
        ("name", "text"),
        *(("scales", scales) for scales in ({"layer2": [1.0]}, {"layer2": (1, 0.5)}, {})),
        *(("share", share) for share in (0.5, 1, None, math.nan, -math.inf)),
        ("scales", {"layer2": [math.nan]}),
        ("on", True),
    ],
)
def test_arguments_of_the_type_are_left_as_they_are(name: str, value: object) -> None:
    before = repr(value)
    check_types(example, {name: value, "self": 5}, left_out=())
    assert repr(value) == before


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("size", size, "int | tuple[int, int]") for size in (32.0, (32, 32, 3), [32], (32.5, 32), "32", None, True)),
        *(("name", text, "str") for text in (None, 5, ["text"])),
        *(
            ("scales", scales, "dict[str, list[float]]")
            for scales in (1.0, {"layer2": 1.0}, {"layer2": None}, {"layer2": ["1"]}, ["layer2"], None)
        ),
        *(("share", share, "float | None") for share in ("0.5", [0.5], True)),
        *(("on", on, "bool") for on in (1, None, "no")),
    ],
)
def test_arguments_of_another_type_are_named(name: str, value: object, expected: str) -> None:
    message = f"{name} has the wrong type: expected {expected}, got {value!r}."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        check_types(example, {name: value}, left_out=())
    check_types(example, {name: value}, left_out=[name])

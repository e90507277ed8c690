# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the checks of settings."""

from __future__ import annotations

import math
import re

import pytest

from anomalib_hgad.common.checks import check_range


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

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Warnings are ignored for a while, and heeded again."""

from __future__ import annotations

import warnings
from contextlib import ExitStack

from anomalib_hgad.common.warnings_by_design import ignored


def heard(*messages: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        for message in messages:
            warnings.warn(message, stacklevel=1)
    return [str(warning.message) for warning in caught]


def test_others_are_heard() -> None:
    with ignored("no optimizer", r"Found \d+ modules"):
        assert heard("no optimizer here", "Found 3 modules", "Found no modules") == ["Found no modules"]
    assert heard("no optimizer here") == ["no optimizer here"]


def test_two_may_end_in_any_order() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(ignored("one"))
    second.enter_context(ignored("two"))
    first.close()
    assert heard("one", "two") == ["one"]
    second.close()
    assert heard("one", "two") == ["one", "two"]


def test_filters_restored_meanwhile_are_no_error() -> None:
    with ignored("one"):
        warnings.resetwarnings()
    assert heard("one") == ["one"]

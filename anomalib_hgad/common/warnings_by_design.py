# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Warnings about what is meant to be so."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast


@contextmanager
def ignored(*messages: str) -> Iterator[None]:
    """Ignore some warnings for a while.

    Unlike :class:`warnings.catch_warnings` two of these may end in any order, and what others set meanwhile stays.

    Args:
        *messages: Regular expressions of how they begin.
    """
    filters = []
    for message in messages:
        warnings.filterwarnings("ignore", message=message)
        filters.append(warnings.filters[0])
    try:
        yield
    finally:
        for one in filters:
            with suppress(ValueError):  # somebody has restored the filters of before
                cast("list[Any]", warnings.filters).remove(one)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Warnings that are expected by design."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast


@contextmanager
def ignored(*messages: str) -> Iterator[None]:
    """Ignore some warnings within a context.

    Unlike with :class:`warnings.catch_warnings`, two of these may end in any order, and filters set in between stay.

    Args:
        *messages: Regular expressions that match the start of a warning.
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

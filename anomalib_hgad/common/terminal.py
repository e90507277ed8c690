# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Text of the commands on the terminal."""

from __future__ import annotations

from rich.console import Console


def console() -> Console:
    """Return a console for text with names and paths: brackets and ``:x:`` stay, and no path is broken into lines."""
    return Console(markup=False, emoji=False, soft_wrap=True)

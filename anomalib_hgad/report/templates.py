# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Templates of the pages."""

from __future__ import annotations

from datetime import datetime, timezone

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def page_template(name: str) -> Template:
    """Template of a self-contained page.

    Args:
        name: Its file in this folder.
    """
    environment = Environment(
        loader=PackageLoader("anomalib_hgad.report", "."),
        autoescape=True,  # names of folders and files come from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    return environment.get_template(name)


def time_of_page() -> str:
    """Current time in the format of the pages."""
    return datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")

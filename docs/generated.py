# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Sphinx extension with the parts of the reference that are made from the package itself."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout, suppress
from pathlib import Path
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from anomalib_hgad import cli

ROOT = Path(__file__).parents[1]
WIDTH = "100"
"""Columns of a help text."""


class CommandReference(Directive):
    """A section for every subcommand of ``anomalib-hgad``, with its help text."""

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        return [_section(f"anomalib-hgad {name}", _block(help_of(name), "text")) for name in cli.COMMANDS]


class ConfigReference(Directive):
    """A section for every file of ``configs``: what its first comment says, and its contents."""

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        sections = []
        for path in sorted((ROOT / "configs").rglob("*.yaml")):
            lines = path.read_text(encoding="utf-8").splitlines()
            length = next(index for index, line in enumerate(lines) if not line.startswith("#"))
            comment = " ".join(line.removeprefix("#").strip() for line in lines[:length])
            contents = _block("\n".join(lines[length:]), "yaml")
            sections.append(_section(str(path.relative_to(ROOT)), nodes.paragraph("", comment), contents))
        return sections


def help_of(command: str) -> str:
    """What a subcommand prints for ``--help``."""
    printed = io.StringIO()
    settings = {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    with redirect_stdout(printed), mock.patch.dict(os.environ, settings), suppress(SystemExit):
        cli.main([command, "--help"])
    return printed.getvalue()


def escape_bars(*event: object) -> None:
    """Keep the bars of a determinant in a docstring; reStructuredText takes them for a substitution."""
    lines = event[-1]
    if isinstance(lines, list):
        lines[:] = [line.replace("|det J|", r"\|det J\|") for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is here."""
    app.add_directive("command-reference", CommandReference)
    app.add_directive("config-reference", ConfigReference)
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True}


def _section(title: str, *body: nodes.Node) -> nodes.section:
    return nodes.section("", nodes.title("", title), *body, ids=[nodes.make_id(title)], names=[title])


def _block(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language)

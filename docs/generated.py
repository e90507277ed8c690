# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Sphinx extension with the parts of the reference that are made from the package itself."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
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
        return [section(f"anomalib-hgad {name}", [text_block(help_of(name), "text")]) for name in cli.COMMANDS]


class ConfigReference(Directive):
    """A section for every file of ``configs``: what its first comment says, and its contents."""

    def run(self) -> list[nodes.Node]:
        self.state.document.settings.env.note_reread()
        return [self.entry(path) for path in sorted((ROOT / "configs").rglob("*.yaml"))]

    def entry(self, path: Path) -> nodes.section:
        lines = path.read_text(encoding="utf-8").splitlines()
        first = next(index for index, line in enumerate(lines) if not line.startswith("#"))
        comment = " ".join(line.removeprefix("#").strip() for line in lines[:first])
        body = [nodes.paragraph("", comment), text_block("\n".join(lines[first:]), "yaml")]
        return section(str(path.relative_to(ROOT)), body)


def section(title: str, body: list[nodes.Node]) -> nodes.section:
    made = nodes.section("", nodes.title("", title), *body, ids=[nodes.make_id(title)], names=[title])
    return made


def text_block(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language)


def help_of(command: str) -> str:
    """What a subcommand prints for ``--help``."""
    printed = io.StringIO()
    with redirect_stdout(printed), mock.patch.dict(os.environ, {"COLUMNS": WIDTH, "NO_COLOR": "1"}):
        try:
            cli.main([command, "--help"])
        except SystemExit as end:
            assert not end.code, printed.getvalue()
    return printed.getvalue()


def escape_bars(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """Keep the bars of a determinant, which reStructuredText takes for a substitution."""
    lines[:] = [line.replace("|det J|", r"\|det J\|") for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.connect("autodoc-process-docstring", escape_bars)
    app.add_directive("command-reference", CommandReference)
    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True}

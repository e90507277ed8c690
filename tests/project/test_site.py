# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The documentation builds without a warning: its links lead somewhere, and its reference has every public name."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import anomalib_hgad
from anomalib_hgad import cli
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]


class Page(HTMLParser):
    """Links and anchors of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in {"href", "src"} and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", folder / "trees"]
    built = subprocess.run(
        [*command, ROOT / "docs", folder / "html"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) >= 25
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append((path.name, link))
    assert broken == []


def test_reference_has_all_public_names(site: Path) -> None:
    anchors = Page((site / "reference/api.html").read_text()).anchors
    assert {f"anomalib_hgad.{name}" for name in anomalib_hgad.__all__ if name != "__version__"} <= anchors


def test_reference_has_the_options_of_all_commands(site: Path) -> None:
    page = (site / "reference/commands.html").read_text()
    for command in cli.COMMANDS:
        assert f'id="anomalib-hgad-{command}"' in page
    for option in ("--false_alarm_rate", "--known_images", "--score_tolerance", "--backbone_weights", "--settle"):
        assert option in page


def test_reference_has_all_configs(site: Path) -> None:
    page = (site / "reference/configs.html").read_text()
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert str(path.relative_to(ROOT)) in page

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pages can be read with a keyboard, by a screen reader and with weak eyes; nothing of them is wider than a phone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import anomalib_hgad.report
from tests.helpers import browser, reported_run
from tests.helpers.accessibility import LEAST_CONTRAST, LEAST_GRAPHIC_CONTRAST, contrast, faults_of, palettes

STYLE = (Path(anomalib_hgad.report.__file__).parent / "style.css").read_text(encoding="utf-8")
TEXT_PAIRS = [
    *((text, ground) for text in ("ink", "quiet", "link", "wrong", "right") for ground in ("card", "ground")),
    ("ink", "best"),
]
GRAPHIC_PAIRS = [(colour, "card") for colour in ("normal", "anomalous", "unknown", "ink", "quiet")]
WIDTHS = (360, 768, 1280)
AXE = "HGAD_AXE"
"""Environment variable that names axe-core's axe.min.js, from npm."""

PAGE = """<html lang="en"><body><a href="#content">Skip</a><h1>A</h1><h2 id="content">B</h2>
<img src="x" alt="a picture"><svg role="img"><title>a figure</title><g></g></svg>
<div class="scroll" tabindex="0" aria-label="a table">
<table><caption>C</caption><tr><th scope="col">D</th></tr></table>
</div></body></html>"""


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported_run.monitored_line(tmp_path_factory.mktemp("line"))


@pytest.fixture(scope="module")
def page(monitored: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    data = reported_run.write_classes(tmp_path_factory.mktemp("data"))
    run = reported_run.tested_run(data, tmp_path_factory.mktemp("run"))
    other = reported_run.tested_run(data, tmp_path_factory.mktemp("other"), prior="single_gaussian")
    return reported_run.whole_page(run, other, monitored)


@pytest.fixture(scope="module")
def monitor_page(monitored: Path) -> str:
    return (monitored / "monitor.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["page", "monitor_page"])
def test_page_has_no_faults(name: str, request: pytest.FixtureRequest) -> None:
    assert faults_of(request.getfixturevalue(name)) == []


def test_page_without_faults_has_none() -> None:
    assert faults_of(PAGE) == []


@pytest.mark.parametrize(
    ("part", "instead", "fault"),
    [
        (' lang="en"', "", "the page has no language"),
        (' alt="a picture"', "", "an img has no alt text"),
        ("a picture", " ", "an img has no alt text"),
        ("<title>a figure</title>", "", "an svg begins without a title"),
        (' role="img"', "", "an svg has no role of an image"),
        ("<h1>A</h1>", "", "there is not one h1, before all other headings"),
        ("<h1>A</h1>", "<h1>A</h1><h1>A</h1>", "there is not one h1, before all other headings"),
        ("h2", "h3", "h1 is followed by h3"),
        ("<caption>C</caption>", "", "a table has no caption"),
        ('<th scope="col">D</th>', "", "a table has no th"),
        (' scope="col"', "", "a th has no scope"),
        (' tabindex="0"', "", "what scrolls cannot be reached by the keyboard, or has no name"),
        ("</body>", '<p id="content"></p></body>', "the id content is there twice"),
        ('id="content"', "", "nothing has the id content"),
        ('<a href="#content">Skip</a>', "", "the first link does not skip to the content"),
    ],
)
def test_fault_is_found(part: str, instead: str, fault: str) -> None:
    assert part in PAGE
    assert faults_of(PAGE.replace(part, instead)) == [fault]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("#000", "#fff", 21.0), ("#fff", "#ffffff", 1.0), ("#767676", "#fff", 4.54), ("#777777", "#fff", 4.48)],
)
def test_contrast_is_that_of_the_guidelines(first: str, second: str, expected: float) -> None:
    """#767676 is known as the lightest grey that is dark enough on white."""
    assert contrast(first, second) == contrast(second, first) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_contrasts_of_the_style(ground: str) -> None:
    light, dark = palettes(STYLE)
    colours = light if ground == "light" else light | dark
    for pairs, least in ((TEXT_PAIRS, LEAST_CONTRAST), (GRAPHIC_PAIRS, LEAST_GRAPHIC_CONTRAST)):
        low = {pair: ratio for pair in pairs if (ratio := contrast(*(colours[name] for name in pair))) < least}
        assert not low


def test_focus_can_be_seen() -> None:
    assert ":focus-visible { outline: 3px solid" in STYLE
    assert "outline: none" not in STYLE


@pytest.fixture
def chromium() -> None:
    if browser.CHROMIUM is None:
        pytest.skip("there is no chromium")


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["page", "monitor_page"])
def test_page_fits_the_window(name: str, width: int, request: pytest.FixtureRequest) -> None:
    """Nothing is wider than the window, every picture is drawn, and what is wider than its frame can be scrolled."""
    page = request.getfixturevalue(name)
    scroll_width, inner_width, drawn, cut_off = browser.ask(
        page,
        width,
        """document.querySelectorAll("details").forEach(one => { one.open = true; });
        const panels = [...document.querySelectorAll(".panel, .card, .tile")];
        return [document.documentElement.scrollWidth, innerWidth,
            [...document.images].filter(image => image.complete && image.naturalWidth > 0).length,
            panels.filter(one => !one.matches(".scroll") && one.scrollWidth > one.clientWidth).length];""",
    )
    assert inner_width == width
    assert scroll_width <= inner_width
    assert drawn == page.count("<img")
    assert cut_off == 0


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("flags", [(), (browser.DARK,)], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDTHS[0], WIDTHS[-1]])
@pytest.mark.parametrize("name", ["page", "monitor_page"])
def test_axe_finds_nothing(name: str, width: int, flags: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    """The rules of axe-core. A shade at the edge of what scrolls is no ground that it could measure contrast on."""
    if not (library := os.environ.get(AXE)):
        pytest.skip(f"{AXE} names no axe.min.js")
    answer = browser.ask(
        request.getfixturevalue(name),
        width,
        """document.head.insertAdjacentHTML("beforeend", "<style>.scroll { background: var(--card) }</style>");
        document.querySelectorAll("details").forEach(one => { one.open = true; });
        const result = await axe.run();
        const dark = matchMedia("(prefers-color-scheme: dark)").matches;
        const named = rules => rules.map(rule => [rule.id, rule.nodes.map(node => node.html.slice(0, 200))]);
        const [found, unsure] = [named(result.violations), named(result.incomplete)];
        return {dark, rules: result.passes.length, found, unsure};""",
        *flags,
        libraries=Path(library).read_text(encoding="utf-8"),
    )
    assert answer["dark"] == bool(flags)
    assert answer["rules"] > 20
    assert answer["found"] == []
    assert answer["unsure"] == []

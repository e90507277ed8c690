# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Basic checks of whether a page can be read with a keyboard, by a screen reader, and with weak eyes."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

LEAST_CONTRAST = 4.5
"""Of text and its ground, by the Web Content Accessibility Guidelines (WCAG) 2.2, level AA."""

LEAST_GRAPHIC_CONTRAST = 3.0
"""Of what has to be seen in a figure and its ground."""

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


class _Reader(HTMLParser):
    """Collects the faults of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.headings: list[int] = []
        self._tables: list[set[str]] = []
        self._untitled_svg = False
        self._depth_of_svg = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self._require(not self._untitled_svg or tag == "title", "an svg begins without a title")
        self._untitled_svg = tag == "svg"
        self._collect(tag, attributes)
        if tag == "svg":
            self._require(attributes.get("role") == "img", "an svg has no role of an image")
        elif tag == "html":
            self._require(bool(attributes.get("lang")), "the page has no language")
        elif tag == "img":
            self._require(bool(attributes.get("alt", "").strip()), "an img has no alt text")
        elif tag == "th":
            self._require(bool(attributes.get("scope")), "a th has no scope")
        if "scroll" in attributes.get("class", "").split():
            reachable = attributes.get("tabindex") == "0" and bool(attributes.get("aria-label"))
            self._require(reachable, "what scrolls cannot be reached by the keyboard, or has no name")

    def _collect(self, tag: str, attributes: dict[str, str]) -> None:
        """Take in what is judged when the whole page is known."""
        if tag == "svg":
            self._depth_of_svg += 1
        elif not self._depth_of_svg and "id" in attributes:
            self.ids.append(attributes["id"])
        if tag in HEADINGS:
            self.headings.append(HEADINGS.index(tag) + 1)
        elif tag == "table":
            self._tables.append(set())
        elif tag in {"caption", "th"} and self._tables:
            self._tables[-1].add(tag)
        elif tag == "a" and attributes.get("href", "").startswith("#"):
            self.targets.append(attributes["href"][1:])

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._depth_of_svg -= 1
        elif tag == "table":
            self.faults += [f"a table has no {part}" for part in sorted({"caption", "th"} - self._tables.pop())]

    def _require(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)


def faults_of(page: str) -> list[str]:
    """What is wrong with a page.

    Args:
        page: HTML.

    Returns:
        Sentences; none if all is well.
    """
    reader = _Reader(page)
    faults = reader.faults
    if reader.headings.count(1) != 1 or reader.headings[:1] != [1]:
        faults.append("there is not one h1, before all other headings")
    faults += [f"h{first} is followed by h{then}" for first, then in pairwise(reader.headings) if then > first + 1]
    faults += [
        f"the id {name} is there twice" for name in sorted({one for one in reader.ids if reader.ids.count(one) > 1})
    ]
    faults += [f"nothing has the id {name}" for name in reader.targets if name not in reader.ids]
    if reader.targets[:1] != ["content"]:
        faults.append("the first link does not skip to the content")
    return faults


def contrast(first: str, second: str) -> float:
    """Contrast of two colours by WCAG 2.2, from 1 to 21.

    Args:
        first: Colour such as ``"#fff"`` or ``"#2f6f9f"``.
        second: Likewise.
    """
    dark, light = sorted(map(_luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def palettes(style: str) -> list[dict[str, str]]:
    """Colours of a style sheet by the names of their variables.

    Args:
        style: CSS.

    Returns:
        One for each ``:root`` in it: on a light ground, on a dark one.
    """
    return [
        dict(re.findall(r"--(\w+): (#\w+)", root)) for root in re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    ]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pages in headless Chromium: what they say of themselves, and pictures of them.

A window of Chromium is 500 pixels wide at least, so a page is shown in a frame that is as narrow as a phone.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
DARK = "--blink-settings=preferredColorScheme=0"
"""Setting that asks pages for their colours on a dark ground."""

NARROWEST = 500
"""Width in pixels of Chromium's narrowest window."""

SCRIPT = """<script>addEventListener("load", async () => {{
    let answer;
    try {{ answer = await (async () => {{ {body} }})(); }} catch (error) {{ answer = {{error: String(error)}}; }}
    parent.postMessage(JSON.stringify(answer), "*");
}});</script>"""

FRAME = """<!doctype html><html><body style="margin: 0">
<script>addEventListener("message", event => {{ document.body.dataset.answer = event.data; }});</script>
<iframe src="page.html" style="border: 0; width: {width}px; height: {height}px"></iframe></body></html>"""


def ask(page: str, width: int, script: str, *flags: str, libraries: str = "") -> Any:
    """Run a script in a page.

    Args:
        page: HTML.
        width: Width of the window in pixels.
        script: Body of an asynchronous function in JavaScript that returns what can be JSON.
        *flags: Of Chromium.
        libraries: JavaScript that the script needs.

    Returns:
        What it returned.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        added = f"<script>{libraries}</script>{SCRIPT.format(body=script)}</body>"
        _write(folder, page.replace("</body>", added), width, 900)
        # Time stands still until what the page waits for is there.
        shown = _chromium(folder, width, 900, "--virtual-time-budget=30000", "--dump-dom", *flags)
    found = re.search(r'data-answer="([^"]*)"', shown)
    if found is None:
        msg = "The page gave no answer."
        raise RuntimeError(msg)
    return json.loads(html.unescape(found[1]))


def picture(page: str, width: int, height: int, output: Path, *flags: str) -> None:
    """Write a picture of the upper part of a page.

    Args:
        page: HTML.
        width: Width of the window in pixels.
        height: Height of the part.
        output: PNG file.
        *flags: Of Chromium.
    """
    with tempfile.TemporaryDirectory() as name:
        _write(Path(name), page, width, height)
        _chromium(Path(name), width, height, f"--screenshot={output.resolve()}", *flags)


def _write(folder: Path, page: str, width: int, height: int) -> None:
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width=width, height=height), encoding="utf-8")


def _chromium(folder: Path, width: int, height: int, *flags: str) -> str:
    if CHROMIUM is None:
        msg = "There is no chromium."
        raise FileNotFoundError(msg)
    window = f"--window-size={max(width, NARROWEST)},{height}"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", window, *flags]
    address = (folder / "frame.html").as_uri()
    return subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=180).stdout

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names and paths on the terminal are what they are."""

from __future__ import annotations

import pytest

from anomalib_hgad.common.terminal import console


def test_paths_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Long ones stay on one line, and codes of emoji and markup are letters."""
    path = "/line [b]3[/b]/at:x:gate" + "/folder" * 30 + "/report.html"
    console().print(f"Report: {path}")
    assert capsys.readouterr().out == f"Report: {path}\n"

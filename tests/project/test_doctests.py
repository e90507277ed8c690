# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The examples in the package's docstrings give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

FILES = [path for path in sorted((ROOT / "anomalib_hgad").rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_of_a_module(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed

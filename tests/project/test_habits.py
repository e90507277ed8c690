# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a host of repositories and pre-commit read: it says the same as the gate."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.paths import ROOT

GITHUB = ROOT / ".github"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_workflow_runs_the_gate() -> None:
    (job,) = read(GITHUB / "workflows/ci.yml")["jobs"].values()
    *setup, gate = job["steps"]
    assert gate == {"run": ".ci/run"}
    assert all(step.keys() <= {"uses", "with"} for step in setup)
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert setup[-1]["with"]["python-version"] == "3.11"


def test_hooks_are_those_of_the_gate() -> None:
    """By the tools of the environment: nothing is fetched, and no other version says something else."""
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    entries = [shlex.split(hook["entry"]) for hook in repository["hooks"]]
    assert [entry[2:4] for entry in entries] == [["ruff", "check"], ["ruff", "format"], ["mypy"]]
    for hook, (python, flag, module, *_) in zip(repository["hooks"], entries, strict=True):
        assert hook["language"] == "system"
        assert (python, flag) == ("python", "-m")
        assert importlib.util.find_spec(module)


@pytest.mark.parametrize("form", ["bug_report.yml", "feature_request.yml"])
def test_issue_forms_have_what_their_host_asks_for(form: str) -> None:
    content = read(GITHUB / "ISSUE_TEMPLATE" / form)
    assert {"name", "description", "body"} <= content.keys()
    assert any(field.get("validations", {}).get("required") for field in content["body"])
    names = [field["id"] for field in content["body"]]
    assert len(set(names)) == len(names)
    assert all({"label"} <= field["attributes"].keys() for field in content["body"])


@pytest.mark.parametrize("page", sorted(GITHUB.glob("*.md")), ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target

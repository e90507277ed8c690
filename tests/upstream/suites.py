# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Runs anomalib's own tests, from a checkout of its repository, on a model of ours in the place of the one they take.

They run in a copy of the checkout's tests, in a temporary folder, with the anomalib that is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.helpers.paths import ROOT

HERE = Path(__file__).parent

PARTS = {
    "model": ["tests/integration/model"],
    "cli": ["tests/integration/cli"],
    "deploy": ["tests/unit/deploy"],
    "tiled ensemble": ["tests/unit/pipelines", "tests/integration/pipelines/test_tiled_ensemble.py"],
    "benchmark": ["tests/integration/pipelines/test_benchmark.py"],
    "datamodule": ["tests/unit/data/datamodule/image/test_multi_class.py"],
}
"""Paths of the tests in the checkout. The last one is put there, see :mod:`tests.upstream.suite_of_multi_class`."""

TAKEN = {"tests/unit/pipelines/tiled_ensemble/dummy_config.yaml": "Fastflow"}
"""Models that files take in the place of Padim."""

REGISTERED = {"Hgad": "hgad", "UniAd": "uni_ad", "Padim": "padim"}
"""Names of the models in ``list_models()``, over which the tests of models run."""

SETTINGS = (
    "[pytest]\naddopts = -ra\nmarkers =\n    gpu: needs a GPU\n    cpu: runs on a CPU\n    network: needs internet\n"
)


def run_suites(checkout: Path, model: str, folder: Path, *parts: str) -> dict[str, str]:
    """Run anomalib's tests on a model.

    Args:
        checkout: Folder with anomalib's repository.
        model: One of :data:`REGISTERED`. Padim, without this package installed, tells what upstream itself does.
        folder: Where they run; it has to be new. ``log.txt`` in it has what they print.
        *parts: Some of :data:`PARTS`; without any, all.

    Returns:
        Outcome of every test: ``passed``, ``failed`` or ``skipped``, by module and name as ``test_cli::test_fit``.
    """
    shutil.copytree(checkout / "tests", folder / "tests")
    shutil.copytree(checkout / "examples", folder / "examples")
    for file in (folder / "tests").rglob("*"):
        if file.suffix in {".py", ".yaml"}:
            taken = TAKEN.get(file.relative_to(folder).as_posix(), "Padim")
            file.write_text(re.sub(rf"\b{taken}\b", model, file.read_text()))
    shutil.copy(HERE / "suite_of_multi_class.py", folder / PARTS["datamodule"][0])
    shutil.copy(HERE / "offline.py", folder / "offline_of_hgad.py")
    (folder / "pytest.ini").write_text(SETTINGS)
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    paths = [path for part in parts or PARTS for path in PARTS[part]]
    chosen = f"{REGISTERED[model]} or not test_models"
    command = [sys.executable, "-m", "pytest", "-p", "offline_of_hgad", "--junitxml=outcome.xml", "-k", chosen, *paths]
    with (folder / "log.txt").open("w") as log:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "MPLBACKEND": "Agg"}
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
    outcomes = {}
    for case in ET.parse(folder / "outcome.xml").iter("testcase"):
        kinds = {child.tag for child in case}
        module = re.findall(r"\btest_\w+", case.get("classname", ""))[-1]
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        outcomes[f"{module}::{case.get('name')}"] = outcome
    return outcomes

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What the package imports is declared, and is in the wheel, by the import statements of the sources."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import requires

import pytest

from tests.helpers.paths import ROOT

PACKAGE = "anomalib_hgad"
SOURCES = {str(file.relative_to(ROOT)): file.read_text() for file in (ROOT / PACKAGE).rglob("*.py")}
PROJECT = (ROOT / "pyproject.toml").read_text()

DISTRIBUTIONS = {
    "FrEIA": "FrEIA",
    "PIL": "pillow",
    "anomalib": "anomalib",
    "cv2": "opencv-python-headless",
    "einops": "einops",
    "jinja2": "jinja2",
    "jsonargparse": "jsonargparse",
    "lightning": "lightning",
    "markupsafe": "markupsafe",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "platformdirs": "platformdirs",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
    "typing_extensions": "typing-extensions",
}
"""Names of packages where they are imported, and where they are installed from."""

BY_ANOMALIB = {"nncf", "onnx", "openvino"}
"""What comes with ``anomalib[openvino]``: anomalib says which versions of them its export works with."""


OPTIONAL = {"onnxruntime"}
"""What has an extra of its own name, and an error that says so where it is missing."""


def array(name: str) -> list[str]:
    """Texts of an array of ``pyproject.toml``; Python 3.10 has no reader of its own for the format."""
    (lines,) = re.findall(rf"^{name} = \[\n(.*?)^\]", PROJECT, re.DOTALL | re.MULTILINE)
    return re.findall(r'^ +"([^"]+)",$', lines, re.MULTILINE)


def distribution(requirement: str) -> str:
    """Name of what a requirement asks for."""
    return re.match(r"[\w.-]+", requirement)[0]


def imported(source: str) -> Iterator[str]:
    """Modules that a source imports, within functions and for the type checker as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_what_is_imported_is_declared_and_no_more() -> None:
    names = {module.partition(".")[0] for source in SOURCES.values() for module in imported(source)}
    others = names - set(sys.stdlib_module_names) - {PACKAGE}
    assert others == DISTRIBUTIONS.keys() | BY_ANOMALIB | OPTIONAL
    assert {name for name in OPTIONAL for line in array(name) if distribution(line) == name} == OPTIONAL
    assert sorted(DISTRIBUTIONS.values()) == sorted(map(distribution, array("dependencies")))


def test_every_dependency_has_a_lowest_version_and_a_reason() -> None:
    lines = re.findall(r"^ +#.*\n +\"[^\"]+>=[^\"]+\",$", PROJECT, re.MULTILINE)
    reasoned = {distribution(re.search(r'"(.+)"', line)[1]) for line in lines}
    assert set(map(distribution, array("dependencies"))) <= reasoned


def test_anomalib_brings_what_it_exports_with() -> None:
    assert any(requirement.startswith("anomalib[openvino]") for requirement in array("dependencies"))
    of_extra = {distribution(line) for line in requires("anomalib") if re.search(r"extra == .openvino.", line)}
    assert of_extra >= BY_ANOMALIB


@pytest.mark.parametrize("left_out", ["anomalib_hgad/demo/distill.py", "anomalib_hgad/demo/patterns.py"])
def test_what_the_wheel_leaves_out_is_needed_by_nothing_in_it(left_out: str) -> None:
    excluded = array("exclude")
    assert left_out in excluded
    assert (ROOT / left_out).is_file()
    module = left_out.removesuffix(".py").replace("/", ".")
    assert [name for name, source in SOURCES.items() if name not in excluded and module in imported(source)] == []

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A host that changed under us, and the switch of the hook that registers with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import ModuleType

import pytest

import anomalib_hgad
from anomalib_hgad import autoload
from anomalib_hgad import compatibility as host
from tests.helpers.paths import ROOT

BOUNDS = next(line for line in requires("anomalib-hgad") if line.startswith("anomalib["))
LOST = ImportError("cannot import name 'AnomalibModule' from 'anomalib.models'", name="anomalib.models")
MESSAGE = (
    rf"anomalib-hgad {version('anomalib-hgad')} works with {re.escape(BOUNDS)}; anomalib 3\.1 is installed: cannot "
    r"import name 'AnomalibModule' from 'anomalib\.models'\. Install a version within these bounds"
)


@pytest.fixture
def changed_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """anomalib 3.1, which has no AnomalibModule."""

    def fail(name: str, package: str | None = None) -> ModuleType:
        raise LOST

    monkeypatch.setattr("importlib.import_module", fail)
    monkeypatch.setattr(host, "version", lambda package: "3.1" if package == "anomalib" else version(package))


def test_bounds_are_those_of_the_project() -> None:
    assert {">=2.7", "<3"} == set(BOUNDS.removeprefix("anomalib[openvino]").split(","))


def test_import_names_the_versions_that_work(changed_host: None) -> None:
    with pytest.raises(ImportError, match=MESSAGE) as caught:
        anomalib_hgad.Hgad  # noqa: B018
    assert caught.value.__cause__ is LOST


def test_registration_says_so_once(changed_host: None) -> None:
    """For all classes of a module together."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        autoload.__dict__.pop("__warningregistry__", None)
        autoload.register(ModuleType("anomalib.models"))
        autoload.register(ModuleType("anomalib.data"))
    (warning,) = caught
    assert re.match(MESSAGE, str(warning.message))


def test_without_anomalib(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        if package == "anomalib":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(host, "version", absent)
    message = host.explain(ModuleNotFoundError("No module named 'anomalib'", name="anomalib"))
    assert "anomalib is not installed: No module named 'anomalib'" in message


def test_module_that_hides_anomalib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an anomalib.py in the current folder."""
    assert ", but " not in host.explain(LOST)
    hiding = ModuleType("anomalib")
    hiding.__file__ = "/lab/anomalib.py"
    monkeypatch.setitem(sys.modules, "anomalib", hiding)
    assert "is installed, but /lab/anomalib.py is imported (rename it if it is something else): " in host.explain(LOST)


def test_finders_of_old_form_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does."""
    finder = autoload._AnomalibFinder()
    monkeypatch.setattr(sys, "meta_path", [object(), finder, PathFinder])
    assert finder.find_spec("anomalib_hgad.cli", anomalib_hgad.__path__).name == "anomalib_hgad.cli"


def test_hook_that_is_loaded_again_is_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = type("_AnomalibFinder", (), {})()
    monkeypatch.setattr(sys, "meta_path", [earlier, PathFinder])
    autoload.install()
    assert sys.meta_path == [earlier, PathFinder]


@pytest.mark.parametrize(
    ("value", "is_on"), [(None, True), ("", True), ("1", True), ("0", False), ("false", False), ("No", False)]
)
def test_switch_of_the_hook(value: str | None, is_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMALIB_HGAD_AUTOLOAD", raising=False)
    if value is not None:
        monkeypatch.setenv("ANOMALIB_HGAD_AUTOLOAD", value)
    installed = []
    monkeypatch.setattr(autoload, "install", lambda: installed.append(True))
    exec((ROOT / "anomalib_hgad/autoload.pth").read_text())
    assert bool(installed) is is_on


@pytest.mark.parametrize("name", [None, "torch", "anomalib_hgad.models.hgad.flows"])
def test_other_errors_stay_as_they_are(name: str | None) -> None:
    error = ImportError("lost", name=name)
    with pytest.raises(ImportError, match=r"^lost$") as caught, host.explain_missing_names():
        raise error
    assert caught.value is error


def test_package_that_was_never_installed_leaves_the_error_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(package: str) -> list[str]:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(host, "requires", nothing)
    assert host.explain(LOST) is None


START = """
import sys
events = []

def record(event, arguments):
    writing = event == "open" and set(str(arguments[1])) & set("wax+")
    events.append(("write" if writing else event, str(arguments[0]) if arguments else ""))

sys.addaudithook(record)
sys.path[:0] = {paths!r}
import site
site.addsitedir({folder!r})
print(*sorted(name for name in sys.modules if name.startswith("anomalib_hgad")))
print(*sorted({{event for event, _ in events}}))
print(*sorted({{path for event, path in events if event == "open" and path.endswith(".py")}}))
{code}
"""


def started(folder: Path, code: str, **environment: str) -> list[str]:
    """What a Python prints that starts with this repository's line in its site-packages, and with no other."""
    (folder / "line.pth").write_text((ROOT / "anomalib_hgad/autoload.pth").read_text())
    script = START.format(paths=[str(folder), str(ROOT)], folder=str(folder), code=code)
    process = subprocess.run(
        # Without site-packages, whose lines would come first, and with no compiled files to hide what is read.
        [sys.executable, "-S", "-B", "-X", f"pycache_prefix={folder / 'none'}", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


@pytest.mark.subprocess
def test_hook_does_nothing_at_the_start_but_import_this_package(tmp_path: Path) -> None:
    """Of this package two files are read; no process is started, nothing sent, nothing written."""
    modules, events, files = started(tmp_path, "")
    assert modules.split() == ["anomalib_hgad", "anomalib_hgad.autoload"]
    own = [str(ROOT / "anomalib_hgad" / name) for name in ("__init__.py", "autoload.py")]
    assert [file for file in files.split() if "anomalib" in Path(file).parent.name] == own
    assert set(events.split()) <= {
        *("compile", "exec", "import", "open", "os.listdir", "os.scandir", "marshal.loads"),
        "sys._getframe",  # Python 3.13
    }


@pytest.mark.subprocess
def test_hook_is_switched_off_by_the_environment(tmp_path: Path) -> None:
    """Then nothing of this package is loaded, before and after anomalib is, of which here is the shell alone."""
    for module in ("data", "models"):
        (tmp_path / "anomalib" / module).mkdir(parents=True)
        (tmp_path / "anomalib" / module / "__init__.py").touch()
    code = """
import anomalib.models, anomalib.data
print([name for name in (*sys.modules, *vars(anomalib.models), *map(repr, sys.meta_path)) if "hgad" in name.lower()])
"""
    modules, _, files, loaded = started(tmp_path, code, ANOMALIB_HGAD_AUTOLOAD="0")
    assert (modules, loaded) == ("", "[]")
    assert "anomalib_hgad" not in files

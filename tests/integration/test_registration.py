# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""How anomalib finds the plugin, and that a broken plugin does not break anomalib."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from anomalib.pipelines.benchmark.generator import BenchmarkJobGenerator
from anomalib.pipelines.benchmark.job import BenchmarkJob

from anomalib_hgad import autoload
from tests.helpers import trees
from tests.helpers.light import LIGHT
from tests.helpers.paths import ROOT


def python(code: str, *flags: str) -> str:
    process = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.subprocess
def test_python_starts_without_loading_anything_heavy() -> None:
    """Beyond a start without site-packages it loads this package's two files."""
    loaded = python("import sys; print(*sys.modules)").split()
    assert "anomalib_hgad.autoload" in loaded, "the package must be installed, editable or not, to be registered"
    assert not {"torch", "anomalib", "numpy", "anomalib_hgad.models.hgad.lightning_model"} & set(loaded)


@pytest.mark.slow
@pytest.mark.subprocess
def test_found_by_every_name_without_an_import_and_without_network() -> None:
    """Then the other modules of the package are imported: none asks for the network either."""
    python(
        """
import sys
def refuse(event, arguments):
    assert event not in {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}, arguments
sys.addaudithook(refuse)
from anomalib.models import get_model, list_models
assert {"hgad", "uni_ad"} <= {name.lower() for name in list_models()}
light = dict(backbone="resnet18", levels={"layer1": [1.0]}, pre_trained=False)
for name in ("hgad", "Hgad", {"class_path": "Hgad"}, {"class_path": "anomalib.models.Hgad"}):
    assert type(get_model(name, **light)).__name__ == "Hgad"
light = dict(backbone="resnet18", layers=["layer1"], pre_trained=False, encoder_layers=1, decoder_layers=1)
for name in ("uniad", "UniAd", "uni_ad", {"class_path": "UniAd"}, {"class_path": "anomalib.models.UniAd"}):
    assert type(get_model(name, **light)).__name__ == "UniAd"
from anomalib.data import get_datamodule
datamodule = get_datamodule({"class_path": "MultiClass", "init_args": {"dataset": "MVTecAD", "categories": ["bottle"]}})
assert datamodule.class_names == ["bottle"]
assert get_datamodule({"class_path": "Cifar10", "init_args": {"normal_classes": ["cat", 0]}}).category == ""
import anomalib_hgad, pkgutil
for module in pkgutil.walk_packages(anomalib_hgad.__path__, "anomalib_hgad."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
""",
    )


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(
    "module", ["anomalib_hgad.models.hgad.flows", "anomalib_hgad.data.class_names", "anomalib.metrics"]
)
def test_any_module_may_be_imported_first(module: str) -> None:
    python(
        f"import {module}, anomalib.models; anomalib.models.Hgad, anomalib.data.MultiClass",
        *("-Werror::UserWarning", "-Wignore::DeprecationWarning"),  # a library may warn of another in both kinds
    )


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.subprocess
def test_datamodule_is_found_through_anomalib_data_alone() -> None:
    python("import anomalib.data; anomalib.data.MultiClass, anomalib.data.Cifar10")


@pytest.mark.slow
@pytest.mark.subprocess
def test_anomalib_works_when_the_plugin_is_broken() -> None:
    output = python(
        """
import sys, warnings
sys.modules["anomalib_hgad.models.hgad.flows"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import anomalib.models
print([str(warning.message) for warning in caught if "anomalib-hgad" in str(warning.message)])
assert anomalib.models.Padim and not hasattr(anomalib.models, "Hgad")
""",
    )
    assert "Hgad could not be registered" in output


@pytest.mark.subprocess
def test_python_starts_when_anomalib_is_absent() -> None:
    """A fresh interpreter that has this package and nothing else on its path."""
    output = python(
        f"""
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + [{str(ROOT)!r}]
import anomalib_hgad.autoload
anomalib_hgad.autoload.install()
try:
    import anomalib
except ModuleNotFoundError as error:
    print(error)
""",
        "-S",
    )
    assert output.strip() == "No module named 'anomalib'"


def test_steps_back_for_a_model_of_anomalibs_own() -> None:
    module = ModuleType("anomalib.models")
    own = type("Hgad", (), {"__module__": "anomalib.models.image.hgad"})
    module.Hgad = own
    with pytest.warns(UserWarning, match="anomalib now has its own Hgad"):
        autoload.register(module)
    assert module.Hgad is own
    assert module.UniAd.__module__ == "anomalib_hgad.models.uniad.lightning_model", (
        "the others are registered all the same"
    )


@pytest.mark.nightly
@pytest.mark.slow
def test_benchmark_lays_categories_and_models_side_by_side(tmp_path: Path) -> None:
    """anomalib's needs equal keys of all runs; it prints what is wrong at the very end, and exits with 0."""
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / name)
    grid = {
        "seed": 0,
        "model": {
            "class_path": {"grid": ["Hgad", "Padim"]},
            "init_args": {"backbone": "resnet18", "pre_trained": False, "visualizer": False},
        },
        "data": {
            "class_path": "MVTecAD",
            "init_args": {"root": str(tmp_path), "category": {"grid": ["bolt", "nut"]}, "num_workers": 0},
        },
    }
    runs = [job.run() for job in BenchmarkJobGenerator("cpu").generate_jobs(grid, None)]
    table = BenchmarkJob.collect(runs)
    assert list(zip(table["model.class_path"], table["data.init_args.category"], strict=True)) == [
        (model, category) for model in ("Hgad", "Padim") for category in ("bolt", "nut")
    ]
    figures = table[["image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"]].to_numpy(float)
    assert ((figures >= 0) & (figures <= 1)).all()


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.nightly
def test_benchmark_runs_by_short_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.mvtec_class(tmp_path / "data/bolt")
    trees.mvtec_class(tmp_path / "data/nut")
    config = {
        "accelerator": ["cpu"],
        "benchmark": {
            "seed": 0,
            "model": {
                "class_path": "Hgad",
                "init_args": LIGHT | {"num_centers": {"grid": [1, 2]}},
            },
            "data": {"class_path": "MultiClass", "init_args": {"root": str(tmp_path / "data"), "num_workers": 0}},
        },
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    process = subprocess.run(
        [Path(sys.executable).with_name("anomalib"), "benchmark", "--config=benchmark.yaml"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PL_TRAINER_MAX_EPOCHS": "1"},  # the benchmark takes no settings of the trainer
    )
    results = list((tmp_path / "runs/benchmark").rglob("results.csv"))
    assert results, process.stdout + process.stderr  # anomalib exits with 0 when a benchmark fails
    assert len(results[0].read_text().splitlines()) == 3

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the benchmark of many models: what is run, what is kept, and the tables."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import timm
import torch
import yaml
from anomalib.models import Padim, Stfpm
from safetensors.torch import save_file

from anomalib_hgad import cli
from anomalib_hgad.benchmark.command import check_classes
from anomalib_hgad.benchmark.execution import RECORD_FILE, REPORTED_PACKAGES, build_model, local_weights
from anomalib_hgad.benchmark.plan import ModelChoice, Protocol, make_plan
from anomalib_hgad.benchmark.summary import summarise
from anomalib_hgad.common.files import write_json
from anomalib_hgad.common.versions import installed_versions
from tests.helpers import trees
from tests.helpers.benchmark_runs import keep_runs_in_this_process, record
from tests.helpers.light import LIGHT
from tests.helpers.paths import ROOT

CONFIGS = sorted((ROOT / "configs/benchmark").glob("*.yaml"))
CLASSES = ("bolt", "nut")


@pytest.fixture
def products(tmp_path: Path) -> Path:
    for name in CLASSES:
        trees.mvtec_class(tmp_path / "products" / name)
    return tmp_path / "products"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles of the runs, which take place here."""
    return keep_runs_in_this_process(monkeypatch)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of a whole resnet18, as a hub would give them."""
    torch.manual_seed(1)
    path = tmp_path / "resnet18.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), path)
    return path


def protocol(root: Path, **changes: object) -> Protocol:
    settings = {
        "data": {"root": str(root), "train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0},
        "image_size": 32,
        "max_epochs": 1,
        "backbone_weights": {},
        "setting": "unified",
    }
    return Protocol(**(settings | changes))


def arguments(root: Path, output: Path, models: dict[str, object], **changes: object) -> list[str]:
    settings = {
        "models": models,
        "data": {"root": str(root), "train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0},
        "image_size": 32,
        "max_epochs": 1,
        "output": str(output),
    } | changes
    config = output.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings))
    return ["benchmark", "--config", str(config)]


LIGHT_HGAD = {"model": "Hgad", "arguments": {name: LIGHT[name] for name in LIGHT if name != "image_size"}}
LIGHT_PADIM = {"model": "Padim", "arguments": {"pre_trained": False, "layers": ["layer1"], "n_features": 8}}
BROKEN = {"model": "Padim", "arguments": {"pre_trained": False, "layers": ["layer9"]}}


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.subprocess
def test_own_process_and_failure(products: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The real thing: a process for each run; one that fails leaves its log, and the other's figures stand."""
    output = tmp_path / "results"
    status = cli.main(arguments(products, output, {"broken": BROKEN, "Hgad": LIGHT_HGAD}))
    assert status == 1
    assert "1 of 2 runs failed: broken seed 0" in capfd.readouterr().out
    assert "layer9" in (output / "broken/seed_0/log.txt").read_text()
    record = json.loads((output / "Hgad/seed_0/record.json").read_text())
    assert record["peak_memory_bytes"] > 1e8
    assert record["parameters"] > 1e5
    assert record["epochs"] == 1
    assert set(record["classes"]) == set(CLASSES)
    assert record["classes"]["bolt"]["class_given_image_AUROC"] is not None
    results = json.loads((output / "results.json").read_text())
    assert str(tmp_path) not in json.dumps(results)
    assert "| Hgad |" in (output / "results.md").read_text()
    with (output / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [*CLASSES, "mean", "pooled"]
    of_classes = [float(row["image_AUROC"]) for row in rows[:2]]
    assert float(rows[2]["image_AUROC"]) == pytest.approx(statistics.mean(of_classes))


@pytest.mark.slow
def test_goes_on_at_the_first_missing_run(products: Path, tmp_path: Path, in_this_process: list[str]) -> None:
    output = tmp_path / "results"
    models = {"Padim": LIGHT_PADIM, "broken": BROKEN}
    assert cli.main(arguments(products, output, models, seeds=[0, 1])) == 1
    assert in_this_process == ["Padim seed 0", "broken seed 0", "Padim seed 1", "broken seed 1"]
    in_this_process.clear()
    (output / "Padim/seed_1/record.json").unlink()
    models["broken"] = LIGHT_PADIM | {"model": "Padim"}
    assert cli.main(arguments(products, output, models, seeds=[0, 1])) == 0
    assert in_this_process == ["broken seed 0", "Padim seed 1", "broken seed 1"]
    table = (output / "results.md").read_text()
    assert "± standard deviation over the seeds" in table


@pytest.mark.slow
def test_other_settings_are_not_mixed(products: Path, tmp_path: Path, in_this_process: list[str]) -> None:
    output = tmp_path / "results"
    assert cli.main(arguments(products, output, {"Padim": LIGHT_PADIM})) == 0
    with pytest.raises(SystemExit):
        cli.main(arguments(products, output, {"Padim": LIGHT_PADIM}, image_size=64))
    assert in_this_process == ["Padim seed 0"]


@pytest.mark.slow
def test_other_versions_are_not_mixed(
    products: Path, tmp_path: Path, in_this_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Defaults of a model may differ from one version to another."""
    output = tmp_path / "results"
    assert cli.main(arguments(products, output, {"Padim": LIGHT_PADIM})) == 0
    path = output / "Padim/seed_0/record.json"
    path.write_text(path.read_text().replace(f'"anomalib": "{version("anomalib")}"', '"anomalib": "2.0.0"'))
    with pytest.raises(SystemExit):
        cli.main(arguments(products, output, {"Padim": LIGHT_PADIM}))
    message = capsys.readouterr().err
    assert "was made with other versions" in message
    assert "'anomalib': '2.0.0'" in message
    assert in_this_process == ["Padim seed 0"]


def test_other_classes_are_not_mixed(products: Path, tmp_path: Path) -> None:
    """A class that has come since is in no finished run, but would be in the means of the others."""
    plan = make_plan({"Padim": ModelChoice("Padim")}, protocol(products), seeds=[0])
    made = {"settings": plan[0].settings, "versions": installed_versions(REPORTED_PACKAGES)}
    write_json(made | {"classes": {key: {} for key in CLASSES}}, tmp_path / plan[0].folder / RECORD_FILE)
    check_classes(plan, tmp_path)
    trees.mvtec_class(products / "gear")
    with pytest.raises(ValueError, match=r"was made with the classes bolt, nut; the data has bolt, gear, nut\."):
        check_classes(plan, tmp_path)


@pytest.mark.slow
def test_one_model_for_each_class(products: Path, tmp_path: Path, in_this_process: list[str]) -> None:
    output = tmp_path / "results"
    assert cli.main(arguments(products, output, {"Padim": LIGHT_PADIM}, setting="separate")) == 0
    assert in_this_process == ["Padim bolt seed 0", "Padim nut seed 0"]
    with (output / "results.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["bolt", "nut", "mean"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == "ablation_closed_form" else [pytest.mark.nightly])
        for path in CONFIGS
    ],
)
def test_shipped_configs(
    config: Path, products: Path, weights: Path, tmp_path: Path, in_this_process: list[str]
) -> None:
    """The first row is run; of all others the models and their arguments are checked."""
    rows = yaml.safe_load(config.read_text())["models"]
    first = next(iter(rows))
    command_line = [
        "benchmark",
        f"--config={config}",
        f"--data.root={products}",
        f"--backbone_weights.resnet18={weights}",
        f"--output={tmp_path / 'results'}",
        "--max_epochs=1",
        "--image_size=32",
        f"--only=[{first}]",
    ]
    assert cli.main(command_line) == 0
    assert in_this_process[0].startswith(first)
    assert (tmp_path / "results/results.md").is_file()


@pytest.mark.slow
@pytest.mark.nightly
def test_every_row_of_the_shipped_configs_builds(products: Path, weights: Path) -> None:
    choices = [choice for config in CONFIGS for choice in yaml.safe_load(config.read_text())["models"].values()]
    models = {json.dumps(choice): ModelChoice(**choice) for choice in choices}  # some are in two configs
    of_all = protocol(products, backbone_weights={"resnet18": str(weights)}, image_size=64)
    for run in make_plan(models, of_all, [0]):
        assert type(build_model(run)).__name__ == run.choice.model


def test_local_weights_reach_models_without_an_argument_for_them(weights: Path) -> None:
    with local_weights({"resnet18": str(weights)}):
        teacher = Stfpm().model.teacher_model.feature_extractor
        student = Padim(pre_trained=False).model.feature_extractor.feature_extractor
    stored = timm.models.load_state_dict(str(weights))
    assert torch.equal(teacher.conv1.weight, stored["conv1.weight"])
    assert not torch.equal(student.conv1.weight, stored["conv1.weight"])


def test_tables_by_hand() -> None:
    """Means over the classes first, then mean and standard deviation over the seeds."""
    summary = summarise([record("A", 0, {"x": 0.9, "y": 0.7}), record("A", 1, {"x": 1.0, "y": 0.8})])
    means = summary.metrics[summary.metrics["class"] == "mean"]["image_AUROC"].tolist()
    assert means == pytest.approx([0.8, 0.9])
    assert "| A | 85.0 ± 7.1 |" in summary.markdown  # sqrt(2) * 5
    assert "| A | 95.0 ± 7.1 | 75.0 ± 7.1 |" in summary.markdown
    assert "| A | 50.0 ± 0.0 |" in summary.markdown
    assert "| A | 10 | 2 | 3 | 2.0 | 1.5 |" in summary.markdown
    assert "/secret" not in json.dumps(summary.runs)


def test_classes_may_be_called_as_columns() -> None:
    table = summarise([record("Padim", 0, {"seed": 0.25, "model": 0.5, "class": 0.75})]).markdown
    rows = table[table.index("image AUROC of each class") :].splitlines()
    assert (rows[2], rows[4]) == ("| model | seed | model | class |", "| Padim | 25.0 | 50.0 | 75.0 |")


def test_separate_models_are_summed_up() -> None:
    records = [record("A", 0, {"x": 0.9}, "separate"), record("A", 0, {"y": 0.7}, "separate")]
    summary = summarise(records)
    assert summary.metrics["class"].tolist() == ["x", "y", "mean"]
    assert summary.metrics["image_AUROC"].tolist() == pytest.approx([0.9, 0.7, 0.8])
    assert summary.costs["fit_seconds"].tolist() == [20]
    assert summary.costs["parameters"].tolist() == [1_500_000]


def test_nothing_finished_yet() -> None:
    assert summarise([]).markdown == "No run is finished.\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda models: models.update(A=ModelChoice("Pdim")), "no model 'Pdim'. Similar names: Padim"),
        (lambda models: models.update(A=ModelChoice("Padim", {"layer": []})), "has no argument layer"),
        (lambda models: models.update({"a/b": ModelChoice("Padim")}), "without slashes"),
        (dict.clear, "at least one model"),
    ],
)
def test_wrong_settings(products: Path, change: Callable[[dict[str, ModelChoice]], object], message: str) -> None:
    models = {"Padim": ModelChoice("Padim")}
    change(models)
    with pytest.raises(ValueError, match=message):
        make_plan(models, protocol(products), [0])


def test_unknown_argument_of_the_data(products: Path) -> None:
    given = protocol(products)
    mistyped = replace(given, data=given.data | {"categorys": ["bolt"]})
    with pytest.raises(ValueError, match=r"MultiClass has no argument categorys\. It has datamodules, "):
        make_plan({"Padim": ModelChoice("Padim")}, mistyped, [0])


def test_unknown_row(products: Path) -> None:
    with pytest.raises(ValueError, match="no row Hgd"):
        make_plan({"Padim": ModelChoice("Padim")}, protocol(products), [0], only=["Hgd"])


@pytest.mark.slow
def test_one_training_is_tested_with_and_without_calibration(
    products: Path, tmp_path: Path, in_this_process: list[str]
) -> None:
    output = tmp_path / "results"
    data = {"root": str(products), "train_batch_size": 4, "eval_batch_size": 4, "num_workers": 0}
    data |= {"val_split_mode": "from_train", "val_split_ratio": 0.5, "seed": 0}
    models = {"Padim": LIGHT_PADIM | {"calibration": True}, "plain": LIGHT_PADIM}
    assert cli.main(arguments(products, output, models, data=data)) == 0
    assert in_this_process == ["Padim seed 0", "plain seed 0"]
    made = json.loads((output / "Padim/seed_0/record.json").read_text())
    for name in CLASSES:
        before, after = made["classes"][name], made["calibrated"]["classes"][name]
        assert after["image_AUROC"] == pytest.approx(before["image_AUROC"])
        assert after["pixel_AUROC"] == pytest.approx(before["pixel_AUROC"], abs=1e-4)
    plain = json.loads((output / "plain/seed_0/record.json").read_text())
    assert plain["pooled"] == pytest.approx(made["pooled"])
    assert plain["calibrated"] is None
    table = (output / "results.md").read_text()
    assert "| Padim, calibrated |" in table
    assert "| plain, calibrated |" not in table


def test_calibrated_rows_by_hand() -> None:
    made = record("A", 0, {"x": 0.9, "y": 0.7})
    made["calibrated"] = {
        "classes": {"x": {"image_AUROC": 0.9}, "y": {"image_AUROC": 0.7}},
        "pooled": {"image_AUROC": 0.8},
    }
    summary = summarise([made, record("B", 0, {"x": 0.6})])
    pooled = summary.metrics[summary.metrics["class"] == "pooled"]
    assert dict(zip(pooled["model"], pooled["image_AUROC"], strict=True)) == {"A": 0.5, "A, calibrated": 0.8, "B": 0.5}
    means = summary.metrics[summary.metrics["class"] == "mean"]
    assert means["image_AUROC"].tolist() == pytest.approx([0.8, 0.8, 0.6])
    assert summary.costs["model"].tolist() == ["A", "B"]
    assert "«calibrated»" in summary.markdown
    assert "«calibrated»" not in summarise([record("B", 0, {"x": 0.6})]).markdown

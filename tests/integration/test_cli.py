# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The real command line on tiny data: registration, every subcommand, every shipped config."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from anomalib.cli import AnomalibCLI
from anomalib.data import PredictDataset
from anomalib.deploy import OpenVINOInferencer, TorchInferencer

from anomalib_hgad import Hgad
from anomalib_hgad.deploy.graph import IN_FLOAT32
from anomalib_hgad.models.callbacks import QuietRun
from tests.helpers import trees
from tests.helpers.commands import (
    FAST_FLAGS,
    LIGHT_FLAGS,
    LIGHT_FLAGS_BY_MODEL,
    command_line,
    data_flags,
    in_process,
    model_flags,
)
from tests.helpers.datasets import CATEGORIES_OF_CONFIG, CLASSES_OF_CONFIG, write_datasets
from tests.helpers.light import LIGHT, LIGHT_FLOW_ARGUMENTS, LIGHT_VIT
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

LIGHT_FLAGS_BY_CONFIG = {
    "cifar10": model_flags(LIGHT_VIT),
    # Of as many blocks as the config's, which takes means of some of them.
    "hgad_dinov2": model_flags({name: value for name, value in LIGHT_VIT.items() if name != "levels"}),
    "hgad_edge": model_flags(LIGHT | {"flow_arguments": {}}),
    "hgad_fast": model_flags(LIGHT | {"flow_arguments": {}}),
    "hgad_offline": [],  # light as it is
    "hgad_fastflow_mvtec_ad": model_flags(LIGHT | {"flow_arguments": LIGHT_FLOW_ARGUMENTS["fastflow"]}),
}

FOR_THE_NIGHT = {
    *("adam_3d", "autovi", "bmad", "btad", "kaputt", "mpdd", "mvtec_3d_rgb", "mvtec_ad_2", "mvtec_loco", "real_iad"),
    *("vad", "visa", "union"),
    *("cflow_mvtec_ad", "fastflow_mvtec_ad", "hgad_dinov2", "hgad_fast", "hgad_fastflow_mvtec_ad", "hgad_paper"),
}
"""Configs that differ from others in their dataset alone, which test_configs.py reads, or in what other tests train."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of two classes and a run of ``anomalib train`` on it."""
    folder = tmp_path_factory.mktemp("cli")
    trees.mvtec_class(folder / "data/bolt")
    trees.mvtec_class(folder / "data/nut", masks=False)
    printed = command_line(
        "train",
        "--model",
        "Hgad",
        *LIGHT_FLAGS,
        # Scores are divided by the range of the raw ones, and with them an export's rounding: not by that of chance.
        "--model.seed=1",
        *data_flags(folder / "data"),
        f"--default_root_dir={folder / 'results'}",
        *FAST_FLAGS,
    )
    (folder / "printed.txt").write_text(printed)
    return folder


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "results/Hgad/data/v0/weights/lightning/model.ckpt"


def test_train_writes_figures_of_every_class(trained: Path) -> None:
    run = trained / "results/Hgad/data/v0"
    figures = json.loads((run / "results.json").read_text())
    assert set(figures["classes"]) == {"bolt", "nut"}
    assert figures["classes"]["bolt"]["pixel_AUROC"] is not None
    assert figures["classes"]["nut"]["pixel_AUROC"] is None
    assert figures["mean"]["pixel_AUROC"] == figures["classes"]["bolt"]["pixel_AUROC"]
    assert (run / "results.csv").read_text().startswith("class,image_AUROC")


def test_train_ends_with_one_table_and_where_its_files_are(trained: Path, checkpoint: Path) -> None:
    printed = (trained / "printed.txt").read_text()
    assert "Test metric" not in printed, "Lightning's table"
    run = trained / "results/Hgad/data/v0"
    places = dict(line.split(maxsplit=1) for line in printed.splitlines() if re.match(r"[A-Z]\w+ +\S+", line))
    assert places["Metrics"] == str(run / "results.csv")
    assert places["Pictures"] == f"{run / 'images'} (all 8 images)"
    assert places["Checkpoint"] == str(checkpoint)
    assert places["Next"] == f"anomalib-hgad report {run}"
    for beginning in QuietRun.BY_DESIGN:
        assert not re.search(beginning, printed)


def test_checkpoint_keeps_the_options_of_the_flow(checkpoint: Path) -> None:
    kept = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["flow_arguments"]
    assert kept == LIGHT["flow_arguments"]
    assert type(kept) is dict


def test_train_saves_a_picture_of_every_test_image(trained: Path) -> None:
    images = trained / "results/Hgad/data/v0/images"
    assert sorted(str(path.relative_to(images)) for path in images.rglob("*.png")) == sorted(
        f"{name}/test/{kind}/{number:03}.png"
        for name in ("bolt", "nut")
        for kind in ("good", "crack")
        for number in range(2)
    )


def test_test_of_a_checkpoint_gives_the_figures_of_the_training(trained: Path, checkpoint: Path) -> None:
    in_process(
        "test",
        "--model=Hgad",
        *LIGHT_FLAGS,
        *data_flags(trained / "data"),
        f"--ckpt_path={checkpoint}",
        f"--default_root_dir={trained / 'tested'}",
        *FAST_FLAGS[1:],
    )
    tested = json.loads(next((trained / "tested").rglob("results.json")).read_text())
    assert tested == json.loads((trained / "results/Hgad/data/v0/results.json").read_text())


def test_settings_of_a_training_stay_when_it_is_tested(trained: Path, checkpoint: Path) -> None:
    """In the folder of its run, so that it can be repeated."""
    run = trained / "results/Hgad/data/v0"
    settings = (run / "config.yaml").read_text()
    results = (run / "results.json").read_text()
    in_process(
        "test",
        "--model=Hgad",
        *LIGHT_FLAGS,
        *data_flags(trained / "data"),
        f"--ckpt_path={checkpoint}",
        f"--default_root_dir={trained / 'results'}",
        *FAST_FLAGS[1:],
    )
    assert (run / "config.yaml").read_text() == settings
    assert "ckpt_path: null" in settings
    assert f"ckpt_path: {checkpoint}" in (run / "test_config.yaml").read_text()
    assert (run / "results.json").read_text() == results
    again = AnomalibCLI(["train", f"--config={run / 'config.yaml'}"], run=False)
    assert again.model.hparams["levels"] == LIGHT["levels"]


def test_predict_saves_a_picture_of_every_image_of_a_folder(trained: Path, checkpoint: Path) -> None:
    in_process(
        "predict",
        "--model=Hgad",
        *LIGHT_FLAGS,
        f"--data={trained / 'data/nut/test/crack'}",
        f"--ckpt_path={checkpoint}",
        f"--default_root_dir={trained / 'predicted'}",
        *FAST_FLAGS[1:],
    )
    assert {path.name for path in (trained / "predicted").rglob("images/**/*.png")} == {"000.png", "001.png"}


def test_predict_saves_a_picture_of_every_image_of_all_classes(trained: Path, checkpoint: Path) -> None:
    in_process(
        "predict",
        "--model=Hgad",
        *LIGHT_FLAGS,
        *data_flags(trained / "data"),
        f"--ckpt_path={checkpoint}",
        f"--default_root_dir={trained / 'predicted_all'}",
        *FAST_FLAGS[1:],
    )
    pictures = {path.parts[-4] for path in (trained / "predicted_all").rglob("images/**/*.png")}
    assert pictures == {"bolt", "nut"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.flow_arguments.hidden_ratio=0.25", "--model.flow_arguments.kernel_sizes=[5,1]"],
        ["--model.flow_arguments={hidden_ratio: 0.25, kernel_sizes: [5, 1]}"],
        [
            "--model.flow_arguments={hidden_ratio: 0.5, kernel_sizes: [5, 1]}",
            "--model.flow_arguments.hidden_ratio=0.25",
        ],
        ["--config=flow.yaml"],
    ],
    ids=["by name", "as a whole", "one changed", "config"],
)
def test_options_of_a_flow(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They arrive in the flow, and are kept as plain data."""
    options = {"hidden_ratio": 0.25, "kernel_sizes": [5, 1]}
    light = LIGHT | {"flow": "fastflow"}
    del light["flow_arguments"]
    config = {"model": {"class_path": "Hgad", "init_args": light | {"flow_arguments": options}}}
    (tmp_path / "flow.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    model = [] if arguments[0].startswith("--config") else ["--model=Hgad", *model_flags(light)]
    hgad = AnomalibCLI(["fit", *model, *arguments, "--data=MVTecAD"], run=False).model
    assert hgad.hparams["flow_arguments"] == options
    assert {type(value) for value in hgad.hparams["flow_arguments"].values()} == {float, list}
    first, second = (hgad.model.flows[0].blocks.module_list[index].subnet[0] for index in (0, 1))
    assert (first.kernel_size, second.kernel_size) == ((5, 5), (1, 1))
    assert (first.in_channels, first.out_channels) == (24, 6)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("torch", "model.pt"),
        *(
            pytest.param(*of_graph, marks=pytest.mark.nightly)
            for of_graph in (("onnx", "model.onnx"), ("openvino", "model.xml"))
        ),
    ],
)
def test_exported_model_gives_the_scores_of_the_checkpoint(
    trained: Path,
    checkpoint: Path,
    kind: str,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_process(
        "export",
        "--model=Hgad",
        *LIGHT_FLAGS,
        *data_flags(trained / "data"),
        f"--export_type={kind}",
        f"--ckpt_path={checkpoint}",
        f"--export_root={trained / 'exported'}",
    )
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    monkeypatch.chdir(trained)  # OpenVINOInferencer leaves a cache where it is
    path = trained / f"exported/weights/{kind}" / file
    # On some processors OpenVINO would otherwise compute in bfloat16.
    inferencer = TorchInferencer(path, device="cpu") if kind == "torch" else OpenVINOInferencer(path, config=IN_FLOAT32)
    model = Hgad.load_from_checkpoint(checkpoint).eval()
    for image in (trained / "data/bolt/test/crack/000.png", trained / "data/nut/test/good/000.png"):
        with torch.no_grad():
            expected = model(PredictDataset(image)[0].image.unsqueeze(0))
        prediction = inferencer.predict(image)
        assert float(np.asarray(prediction.pred_score).squeeze()) == pytest.approx(expected.pred_score.item(), abs=1e-4)
        anomaly_map = np.asarray(prediction.anomaly_map).squeeze()
        np.testing.assert_allclose(anomaly_map, expected.anomaly_map.squeeze().numpy(), atol=1e-4)


@pytest.mark.nightly
def test_class_path_needs_no_registration(trained: Path) -> None:
    """Without the hook (``-S`` keeps Python from reading .pth files) the dotted names still work."""
    code = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from anomalib.cli.cli import main; main()"
    process = subprocess.run(
        [
            *(sys.executable, "-S", "-c", code, ":".join([str(ROOT), *filter(None, sys.path)])),
            *("fit", "--model=anomalib_hgad.Hgad", *LIGHT_FLAGS, "--data=anomalib_hgad.MultiClass"),
            *(f"--data.root={trained / 'data'}", "--data.num_workers=0", *FAST_FLAGS),
            *(f"--default_root_dir={trained / 'dotted'}", "--trainer.limit_train_batches=1"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert list((trained / "dotted").rglob("model.ckpt"))


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny copies of the datasets of the configs, where the configs look for them."""
    write_datasets(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.nightly] if path.stem in FOR_THE_NIGHT else [])
        for path in sorted((ROOT / "configs").glob("*.yaml"))
    ],
)
def test_config_trains(datasets: Path, config: Path) -> None:
    model = yaml.safe_load(config.read_text())["model"]["class_path"]
    in_process(
        "train",
        f"--config={config}",
        *LIGHT_FLAGS_BY_CONFIG.get(config.stem, LIGHT_FLAGS_BY_MODEL[model]),
        "--data.num_workers=0",
        *CATEGORIES_OF_CONFIG.get(config.stem, []),
        "--trainer.check_val_every_n_epoch=1",
        *FAST_FLAGS,
    )
    results = json.loads(next((datasets / "results").rglob("results.json")).read_text())
    assert len(results["classes"]) == CLASSES_OF_CONFIG.get(config.stem, 2)
    assert results["pooled"]["image_AUROC"] is not None
    if config.stem != "cifar10":  # whose anomalous images are of no class
        assert all(figures["image_AUROC"] is not None for figures in results["classes"].values())


def test_configs_name_no_option_that_is_unknown_to_the_model() -> None:
    for config in (ROOT / "configs").glob("*.yaml"):
        settings = yaml.safe_load(config.read_text())
        assert settings["model"]["class_path"] in LIGHT_FLAGS_BY_MODEL
        assert settings["data"]["class_path"] == ("Cifar10" if config.stem == "cifar10" else "MultiClass")

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files with code in them are refused, names from a dataset stay names, and no prediction asks for the network.

That no import does so is tested in ``test_registration``, where Python is started anew.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.deploy import ExportType
from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.benchmark.plan import ModelChoice, Protocol, make_plan
from anomalib_hgad.benchmark.summary import summarise, write_summary
from anomalib_hgad.common.backbone_weights import load_backbone_weights
from anomalib_hgad.evaluation.predictions import Prediction, read_predictions, write_predictions
from anomalib_hgad.evaluation.results import Results, results_table, write_results
from anomalib_hgad.models.hgad.feature_cache.store import FileFeatures, is_intact
from anomalib_hgad.report.command import report
from anomalib_hgad.report.run_files import CHECKPOINT, read_run
from tests.helpers import trees
from tests.helpers.benchmark_runs import record
from tests.helpers.engines import engine, train_and_test
from tests.helpers.html_pages import Elements
from tests.helpers.light import LIGHT, LIGHT_UNIAD

IMAGE = '"><img src=x onerror=alert(1)>'
SCRIPT = "<script>alert(1)<!--"
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", 'a"b', "a,b", "a\nb", "a\r\nb", "'=1", " =1", "\udcff.png"]
REFUSED = (pickle.UnpicklingError, ValueError)


class Code:
    """What makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.made,)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes and files named by mark-up, and an image whose EXIF is."""
    root = tmp_path_factory.mktemp("data")
    for name in (IMAGE, SCRIPT):
        trees.mvtec_class(root / name, suffix=f"{SCRIPT}.png", kinds=(IMAGE,), masks=False)
    exif = Image.Exif()
    exif[0x010E] = SCRIPT  # ImageDescription
    for path in root.rglob("*.png"):
        Image.open(path).save(path, exif=exif)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A training and its test."""
    datamodule = MultiClass(root=data, train_batch_size=4, eval_batch_size=4, num_workers=0)
    return train_and_test(datamodule, tmp_path_factory.mktemp("run"))


@pytest.fixture
def checkpoint_with_code(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint, and the file that it makes when its code runs."""
    path, made = tmp_path / "code.ckpt", tmp_path / "made"
    torch.save({"state_dict": {}, "hgad_class_names": Code(made)}, path)
    torch.load(path, weights_only=False)
    assert made.exists(), "the code is there, and would run"
    made.unlink()
    return path, made


@pytest.mark.parametrize("model", [Hgad, UniAd])
def test_checkpoint_with_code_is_refused(model: type[Hgad | UniAd], checkpoint_with_code: tuple[Path, Path]) -> None:
    path, made = checkpoint_with_code
    with pytest.raises(REFUSED):
        model.load_from_checkpoint(path)
    assert not made.exists()


@pytest.mark.slow
def test_checkpoint_with_code_is_refused_by_the_engine(
    checkpoint_with_code: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    path, made = checkpoint_with_code
    datamodule = MultiClass(root=data, num_workers=0)
    for use in ("test", "predict", "fit"):
        with pytest.raises(REFUSED):
            getattr(engine(tmp_path), use)(Hgad(**LIGHT), datamodule=datamodule, ckpt_path=path)
    with pytest.raises(REFUSED):
        engine(tmp_path).export(Hgad(**LIGHT), ExportType.ONNX, export_root=tmp_path, ckpt_path=path)
    assert not made.exists()


@pytest.mark.slow
def test_checkpoint_with_code_is_refused_by_the_report(
    run: Path, checkpoint_with_code: tuple[Path, Path], tmp_path: Path
) -> None:
    path, made = checkpoint_with_code
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(path, tmp_path / "run" / CHECKPOINT)
    with pytest.raises(REFUSED):
        read_run(tmp_path / "run")
    assert not made.exists()


def test_backbone_weights_with_code_are_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save({"conv1.weight": Code(made)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="cannot be read"):
        load_backbone_weights(torch.nn.Conv2d(1, 1, 1), tmp_path / "weights.pth", "resnet18")
    assert not made.exists()


def test_feature_cache_with_code_is_refused(tmp_path: Path) -> None:
    """Of files that the training finds it says that they are not intact, and computes them anew."""
    made = tmp_path / "made"
    np.save(tmp_path / "code.npy", np.array([Code(made)], dtype=object), allow_pickle=True)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Code(made)))
    for name in ("code.npy", "plain.npy"):
        assert not is_intact(tmp_path / name, 1, [(1, 1, 1)])
        with pytest.raises(FileNotFoundError, match="deleted or changed") as raised:
            FileFeatures([tmp_path / name])[0]
        assert re.search(r"Python objects|pickled", str(raised.value.__cause__))
    assert not made.exists()


@pytest.mark.slow
def test_names_are_text_in_the_report(run: Path, tmp_path: Path) -> None:
    """In the page and in its figures: no element or attribute is of their making."""
    shutil.copytree(run, tmp_path / IMAGE)
    page = report(tmp_path / IMAGE).read_text(encoding="utf-8")
    elements = Elements(page)
    assert not elements.open
    assert not {"script", "iframe", "object", "link"} & {tag for tag, _ in elements.found}
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "img" or attributes["src"].startswith("data:image/jpeg;base64,")
    assert "&lt;script&gt;alert(1)" in page
    assert "&#34;&gt;&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<script" not in page
    assert "<img src=x" not in page


def test_names_are_read_from_csv_as_they_were_written(tmp_path: Path) -> None:
    """Also what a spreadsheet would take for a formula: the files are data, and a name that changed would be wrong."""
    names = ("image_path", "mask_path", "class_name", "pred_class_name")
    known = {"gt_label": True, "pred_label": False, "pred_score": 0.5, "raw_score": -1.5, "novelty": 0.25}
    rows = [Prediction(**dict.fromkeys(names, name), **known) for name in FORMULAS]
    write_predictions(rows, tmp_path)
    assert read_predictions(tmp_path) == rows
    write_results(Results({name: {"x": 0.5} for name in FORMULAS}, {"x": 0.5}), tmp_path)
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert [row["class"] for row in csv.DictReader(file)] == [*FORMULAS, "mean", "pooled"]
    assert list(json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["classes"]) == FORMULAS


def test_names_are_text_in_the_table_of_the_terminal() -> None:
    names = ["[red]a[/red]", "[/]", "[link=http://x]b"]
    console = Console(file=io.StringIO(), width=100)
    console.print(results_table(Results({name: {"x": 0.5} for name in names}, {"x": 0.5}), "Test", {}))
    for name in names:
        assert f" {name} " in console.file.getvalue()


def test_names_are_text_in_markdown(tmp_path: Path) -> None:
    """Read by a Markdown parser: one cell for each name, with the name in it and nothing else."""
    names = [IMAGE, SCRIPT, "a|b", "`c`", "**d**", "[e](http://x)", "f&lt;", "g\\|", "h~~i~~"]
    made = record(names[2], 0, dict.fromkeys(names, 0.5))
    write_summary(summarise([made]), tmp_path)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse((tmp_path / "results.md").read_text())
    inline = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "text_special", "softbreak"}
    shown = ["".join(child.content for child in token.children or ()) for token in tokens if token.type == "inline"]
    assert set(names) <= set(shown)


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "/etc", "a/b", "a\nb", "\x1b[31m", "\udcff"])
def test_names_do_not_lead_out_of_the_results(name: str, tmp_path: Path) -> None:
    """A class may be named by a datamodule or by `categories`, a row of a benchmark by its config."""
    trees.mvtec_class(tmp_path / "data/bolt")
    message = "is also the name of its folder"
    if name:  # anomalib takes the name of the datamodule then
        with pytest.raises(ValueError, match=message):
            MultiClass(datamodules=[Folder(name, root=tmp_path, normal_dir="data")])
    with pytest.raises(ValueError, match=f"Expected categories|{message}"):
        MultiClass(root=tmp_path / "data", categories=[name])
    with pytest.raises(ValueError, match=message):
        make_plan({name: ModelChoice("Padim")}, Protocol({"root": str(tmp_path)}, 32, 1, {}, "unified"), [0])


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        pytest.fail(f"the network was asked for: {arguments} {options}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), [(Hgad, LIGHT), (UniAd, LIGHT_UNIAD)], ids=["Hgad", "UniAd"])
def test_no_network_to_build_and_to_predict(
    no_network: None, kind: type[Hgad | UniAd], settings: dict[str, Any], run: Path, data: Path, tmp_path: Path
) -> None:
    """Without pre-trained weights, with those of a file, and from a checkpoint."""
    model = kind(**settings)
    weights = tmp_path / "weights.pth"
    torch.save(model.model.encoder.extractor.feature_extractor.state_dict(), weights)
    model = kind(**(settings | {"pre_trained": True, "backbone_weights": str(weights)}))
    if kind is Hgad:
        model = Hgad.load_from_checkpoint(run / CHECKPOINT)
        batches = engine(tmp_path).predict(model, data_path=data / SCRIPT / "test", return_predictions=True)
        assert sum(batch.batch_size for batch in batches) == 4
    model.eval()
    assert model(torch.rand(1, 3, 32, 32)).pred_score.isfinite().all()

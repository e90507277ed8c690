# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-hgad check-export`` on real exports: it lets those pass that are the checkpoint's, and no others."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.deploy import CompressionType
from anomalib.models import Padim
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torchvision.transforms.v2 import Resize

from anomalib_hgad import Hgad, MultiClass, UniAd, cli
from anomalib_hgad.data.images import read_checked
from anomalib_hgad.report.parity.exports import load_export
from anomalib_hgad.report.parity.reference import Reference
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.exports import to_openvino
from tests.helpers.light import LIGHT_UNIAD
from tests.helpers.light_run import SETTINGS, LightRun, Run, trained

pytestmark = pytest.mark.slow

SIZE = 32
PADIM: dict[str, Any] = {"backbone": "resnet18", "layers": ["layer1"], "pre_trained": False, "n_features": 8}
IMAGES = 8
"""Test images of both classes."""


@pytest.fixture(scope="module", autouse=True)
def trusted() -> Any:
    """What PyTorch's pickled modules need; they are our own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUST_REMOTE_CODE", "1")
        yield


@pytest.fixture(scope="module")
def hgad(light_run: LightRun) -> Run:
    """Images are resized, to a half or less."""
    return light_run.run


@pytest.fixture(scope="module")
def padim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One of anomalib's own models, on images of the size that it takes."""
    folder = tmp_path_factory.mktemp("padim")
    for name in ("bolt", "nut"):
        trees.mvtec_class(folder / "data" / name, size=(SIZE, SIZE), train=6)
    torch.manual_seed(0)
    pre_processor = PreProcessor(transform=Resize((SIZE, SIZE)))
    model = Padim(**PADIM, pre_processor=pre_processor, visualizer=False)
    checkpoint = Path(trained(model, folder).trainer.default_root_dir) / "weights/lightning/model.ckpt"
    graph = model.to_onnx(folder)
    files = [graph, to_openvino(model, graph, folder), model.to_torch(folder)]
    return Run(model, checkpoint, folder / "data", {file.suffix: file for file in files})


def check(*arguments: object) -> int:
    return cli.main(["check-export", *map(str, arguments)])


def of(run: Run) -> list[object]:
    return ["--ckpt_path", run.checkpoint, "--data.root", run.data]


@pytest.mark.parametrize("name", [pytest.param("hgad", marks=pytest.mark.nightly), "padim"])
def test_exports_pass_and_are_written_down(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = request.getfixturevalue(name)
    files = list(run.exports.values())
    assert check(*files, *of(run), "--output", tmp_path / "parity.json") == 0
    assert "All within the tolerances." in capsys.readouterr().out
    written = json.loads((tmp_path / "parity.json").read_text())
    assert [figures["file"] for figures in written["exports"]] == [str(file) for file in files]
    assert written["failures"] == []
    for figures in written["exports"]:
        assert figures["images"] == IMAGES
        assert figures["largest_score_difference"] < 1e-4
        assert figures["largest_map_difference"] < 1e-4
        assert figures["same_class"] == (1 if name == "hgad" and not figures["file"].endswith(".pt") else None)
        assert figures["form"] == "FP32"
    if name == "hgad":  # the files came from it, and the difference of two runtimes is seldom zero
        assert written["exports"][1]["largest_score_difference"] > 0


@pytest.mark.parametrize("name", ["hgad", "padim"])
def test_reference_is_what_anomalib_predicts(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = request.getfixturevalue(name)
    (batch, *others) = engine(tmp_path).predict(
        model=type(run.model)(**(SETTINGS if name == "hgad" else PADIM | {"visualizer": False})),
        data_path=run.data / "nut/test/crack/001.png",
        ckpt_path=run.checkpoint,
    )
    assert others == []
    found = Reference(run.checkpoint).predict(read_checked(run.data / "nut/test/crack/001.png"))
    assert found.pred_score == batch.pred_score.item()
    assert found.pred_label is bool(batch.pred_label.item())
    np.testing.assert_array_equal(found.anomaly_map, batch.anomaly_map.squeeze().numpy())
    np.testing.assert_array_equal(found.pred_mask, batch.pred_mask.squeeze().numpy())
    assert found.class_name == (batch.pred_class_name[0] if name == "hgad" else None)


def with_other_thresholds(run: Run, folder: Path, **buffers: float) -> Path:
    """A PyTorch export of a model whose post-processor has been changed."""
    content = torch.load(run.exports[".pt"], weights_only=False)
    for name, value in buffers.items():
        getattr(content["model"].post_processor, name).fill_(value)
    path = folder / "changed.pt"
    torch.save(content, path)
    return path


def test_another_threshold_is_noticed(hgad: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    post_processor = hgad.model.post_processor
    middle = (post_processor.image_min + post_processor.image_max).item() / 2
    width = (post_processor.image_max - post_processor.image_min).item()
    path = with_other_thresholds(hgad, tmp_path, _image_threshold=middle + width)
    assert check(path, *of(hgad)) == 1
    printed = capsys.readouterr().out
    assert f"{path} (PyTorch, FP32): pred_score of {hgad.data}" in printed
    assert "pred_label of" in printed
    assert "is False, and True in the checkpoint" in printed
    assert "anomaly_map of" not in printed


def test_another_threshold_of_pixels_is_noticed(hgad: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_other_thresholds(hgad, tmp_path, _pixel_threshold=hgad.model.post_processor.pixel_min.item())
    assert check(path, *of(hgad)) == 1
    printed = capsys.readouterr().out
    assert "anomaly_map of" in printed
    assert "pred_mask of" in printed
    assert "pred_score of" not in printed


def test_other_weights_are_noticed(hgad: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundredth of one convolution."""
    graph = onnx.load(hgad.exports[".onnx"])
    (changed, *_) = (tensor for tensor in graph.graph.initializer if list(tensor.dims)[1:] == [3, 3, 3])
    values = onnx.numpy_helper.to_array(changed) * np.float32(1.01)
    changed.CopyFrom(onnx.numpy_helper.from_array(values, changed.name))
    onnx.save(graph, tmp_path / "changed.onnx")
    assert check(hgad.exports[".onnx"], tmp_path / "changed.onnx", *of(hgad), "--output", tmp_path / "parity.csv") == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "score_tolerance" in line]
    assert any("changed.onnx (onnxruntime, FP32): pred_score of" in line for line in failed)
    with (tmp_path / "parity.csv").open(newline="") as file:
        good, bad = csv.DictReader(file)
    assert float(good["largest_score_difference"]) < 1e-3 < float(bad["largest_score_difference"])


def test_a_resize_without_antialiasing_is_noticed(padim: Run, tmp_path: Path) -> None:
    """As anomalib's own export has it, which takes one pixel of nine here; images of the model's size need none."""
    large = [tmp_path / "images" / f"{number}.png" for number in range(2)]
    large[0].parent.mkdir()
    for number, path in enumerate(large):
        with Image.open(padim.data / f"bolt/test/crack/{number:03}.png") as image:
            image.resize((3 * SIZE, 3 * SIZE), Image.Resampling.NEAREST).save(path)
    for ending in (".onnx", ".xml", ".pt"):
        arguments = (padim.exports[ending], "--ckpt_path", padim.checkpoint)
        assert check(*arguments, "--data.root", large[0].parent, "--output", tmp_path / "parity.json") == 1, ending
        (figures,) = json.loads((tmp_path / "parity.json").read_text())["exports"]
        assert figures["images"] == len(large)
        assert check(*arguments, "--data.root", padim.data) == 0, ending


def test_another_checkpoint_is_noticed(hgad: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(hgad.checkpoint, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.startswith("model.flows") and value.is_floating_point():
            value.mul_(1.1)
    torch.save(content, tmp_path / "model.ckpt")
    assert check(hgad.exports[".xml"], "--ckpt_path", tmp_path / "model.ckpt", "--data.root", hgad.data) == 1
    printed = capsys.readouterr().out
    assert f"beyond it are {IMAGES} of {IMAGES} images. All differ: the file may have been exported from" in printed


def test_scores_that_are_cut_off_are_counted(padim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """anomalib's scores end at 0 and 1: where both are there, they are equal however much the raw ones differ."""
    range_ = padim.model.post_processor.image_max - padim.model.post_processor.image_min
    path = with_other_thresholds(padim, tmp_path, _image_threshold=100.0, image_max=range_.item() + 1)
    assert check(path, "--ckpt_path", padim.checkpoint, "--data.root", padim.data / "nut/train/good") == 0
    assert "6 of 6 scores are cut off at 0 or 1" in capsys.readouterr().out


def test_tolerances_let_it_pass(hgad: Run, tmp_path: Path) -> None:
    low, high = (getattr(hgad.model.post_processor, f"image_{end}").item() for end in ("min", "max"))
    path = with_other_thresholds(hgad, tmp_path, image_max=high + 0.01 * (high - low))
    assert check(path, *of(hgad)) == 1
    assert check(path, *of(hgad), "--score_tolerance", "0.1", "--label_tolerance", "1") == 0


def test_label_at_the_threshold_is_no_other(hgad: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """anomalib's threshold is the score of one of the images: rounding decides its label."""
    post_processor = hgad.model.post_processor
    width = (post_processor.image_max - post_processor.image_min).item()
    changed = post_processor.image_threshold.item() - 1e-4 * width
    assert check(with_other_thresholds(hgad, tmp_path, _image_threshold=changed), *of(hgad)) == 0
    assert "labels differ on images whose score equals the threshold within score_tolerance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("compression", "form"),
    [
        pytest.param(CompressionType.FP16, "FP16", marks=pytest.mark.nightly),
        (CompressionType.INT8, "INT8"),
    ],
)
def test_form_is_named(
    hgad: Run, tmp_path: Path, compression: CompressionType, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = to_openvino(hgad.model, hgad.exports[".onnx"], tmp_path, compression_type=compression)
    loose = [f"--{name}_tolerance=1" for name in ("score", "map", "mask", "label")]
    assert check(path, *of(hgad), *loose) == 0
    assert f"{path} is in {form}, which rounds" in capsys.readouterr().out


def test_graph_for_images_of_one_size(hgad: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images of another size are resized before, as whoever calls it has to."""
    graph = openvino.Core().read_model(hgad.exports[".xml"])
    graph.reshape([1, 3, 80, 96])
    openvino.save_model(graph, tmp_path / "fixed.xml", compress_to_fp16=False)
    assert check(tmp_path / "fixed.xml", *of(hgad)) == 0
    assert "fixed.xml accepts only images of 80 x 96" in capsys.readouterr().out
    other = trees.write_image(tmp_path / "images/other.png", (50, 40))
    assert load_export(tmp_path / "fixed.xml").predict(read_checked(other)).pred_score is not None


def test_model_without_a_threshold_is_compared_by_its_scores(
    padim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """anomalib then puts scores in the place of labels."""
    buffers = ("_image_threshold", "_pixel_threshold", "image_min", "image_max", "pixel_min", "pixel_max")
    content = torch.load(padim.checkpoint, weights_only=True)
    for name in buffers:
        content["state_dict"][f"post_processor.{name}"].fill_(torch.nan)
    folder = tmp_path / "Padim"
    folder.mkdir()
    torch.save(content, folder / "model.ckpt")
    path = with_other_thresholds(padim, tmp_path, **dict.fromkeys(buffers, float("nan")))
    arguments = (path, "--ckpt_path", folder / "model.ckpt", "--data.root", padim.data)
    assert check(*arguments, "--output", tmp_path / "parity.json") == 0
    assert "pred_label and pred_mask mean nothing" in capsys.readouterr().out
    (figures,) = json.loads((tmp_path / "parity.json").read_text())["exports"]
    assert figures["same_label"] is figures["same_mask"] is None
    assert figures["largest_score_difference"] == 0


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("", IMAGES),
        pytest.param("bolt", IMAGES // 2, marks=pytest.mark.nightly),
        ("bolt/train/good", 6),
        pytest.param("nut/test", 4, marks=pytest.mark.nightly),
    ],
)
def test_images_are_those_of_a_test_or_all_of_a_folder(hgad: Run, tmp_path: Path, place: str, count: int) -> None:
    arguments = ("--data.root", hgad.data / place, "--output", tmp_path / "parity.json")
    assert check(hgad.exports[".pt2"], "--ckpt_path", hgad.checkpoint, *arguments) == 0
    assert json.loads((tmp_path / "parity.json").read_text())["exports"][0]["images"] == count


def test_model_of_a_checkpoint_is_given_or_found(padim: Run, hgad: Run, tmp_path: Path) -> None:
    """By the folder of a run of anomalib, or by what only ours hold."""
    assert type(Reference(padim.checkpoint).model) is Padim
    shutil.copy(padim.checkpoint, tmp_path / "padim.ckpt")
    shutil.copy(hgad.checkpoint, tmp_path / "hgad.ckpt")
    assert type(Reference(tmp_path / "padim.ckpt", "Padim").model) is Padim
    assert type(Reference(tmp_path / "hgad.ckpt").model) is Hgad
    run = engine(tmp_path / "uniad")
    run.fit(UniAd(**LIGHT_UNIAD, visualizer=False), datamodule=MultiClass(root=hgad.data, num_workers=0))
    shutil.copy(Path(run.trainer.default_root_dir) / "weights/lightning/model.ckpt", tmp_path / "uniad.ckpt")
    assert type(Reference(tmp_path / "uniad.ckpt").model) is UniAd


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(lambda hgad, _, folder: [folder / "no.onnx", *of(hgad)], r"No file at .*no\.onnx", id="no file"),
        pytest.param(
            lambda hgad, *_: [hgad.checkpoint, *of(hgad)], r"Expected exported files, \.xml, .*model\.ckpt", id="ending"
        ),
        pytest.param(
            lambda hgad, _, folder: [folder / "text.onnx", *of(hgad)],
            r"text\.onnx cannot be run by onnx",
            id="no graph",
        ),
        pytest.param(
            lambda hgad, _, folder: [folder / "text.pt2", *of(hgad)],
            r"text\.pt2 cannot be run by torch",
            id="no program",
        ),
        pytest.param(
            lambda hgad, _, folder: [hgad.exports[".onnx"], *of(hgad._replace(checkpoint=folder / "no.ckpt"))],
            r"No checkpoint at .*no\.ckpt",
            id="no checkpoint",
        ),
        pytest.param(
            lambda hgad, _, folder: [hgad.exports[".onnx"], *of(hgad._replace(data=folder / "empty"))],
            r"Expected images to compare in .*empty",
            id="no images",
        ),
        pytest.param(
            lambda hgad, *_: [hgad.exports[".onnx"], *of(hgad), "--data.batch", "1"],
            r"MultiClass has no argument batch",
            id="argument of the data",
        ),
        pytest.param(
            lambda hgad, *_: [hgad.exports[".onnx"], *of(hgad), "--data.root", "2026"],
            r"MultiClass: root has the wrong type: expected str \| pathlib\.Path \| None, got 2026\.",
            id="type of an argument of the data",
        ),
        pytest.param(
            lambda hgad, padim, _: [hgad.exports[".onnx"], *of(padim)],
            r"model\.onnx is a model Hgad, but the checkpoint is one of Padim",
            id="checkpoint of another model",
        ),
        pytest.param(
            lambda hgad, _, folder: [folder / "classes.onnx", *of(hgad)],
            r"classes\.onnx has the classes bolt, washer, but the checkpoint has bolt, nut",
            id="other classes",
        ),
        pytest.param(
            lambda _, padim, folder: [padim.exports[".onnx"], *of(padim._replace(checkpoint=folder / "unnamed.ckpt"))],
            r"Neither .*unnamed\.ckpt nor the folders that it is in name its model",
            id="unnamed checkpoint",
        ),
        pytest.param(
            lambda _, padim, __: [padim.exports[".onnx"], *of(padim), "--model", "Padin"],
            "got 'Padin'",
            id="unknown model",
        ),
        pytest.param(
            lambda _, padim, __: [padim.exports[".onnx"], *of(padim), "--model", "Cflow"],
            r"model\.ckpt cannot be loaded as Cflow",
            id="wrong model",
        ),
        pytest.param(
            lambda hgad, *_: [hgad.exports[".onnx"], *of(hgad), "--label_tolerance", "2"],
            "label_tolerance is out of range",
            id="tolerance",
        ),
        pytest.param(
            lambda hgad, _, folder: [hgad.exports[".onnx"], *of(hgad), "--output", folder / "parity.txt"],
            r"Expected a \.json or \.csv file",
            id="output",
        ),
    ],
)
def test_misuse_is_one_sentence(
    arguments: Callable[[Run, Run, Path], list[object]],
    said: str,
    hgad: Run,
    padim: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    for ending in ("onnx", "pt2"):
        (tmp_path / f"text.{ending}").write_text("nothing of a model\n")
    shutil.copy(padim.checkpoint, tmp_path / "unnamed.ckpt")
    graph = onnx.load(hgad.exports[".onnx"])
    onnx.helper.set_model_props(graph, {"class_names": '["bolt", "washer"]', "model": '"anomalib_hgad.Hgad"'})
    onnx.save(graph, tmp_path / "classes.onnx")
    with pytest.raises(SystemExit) as exit_:
        check(*arguments(hgad, padim, tmp_path))
    assert exit_.value.code == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(said, error), error


@pytest.mark.parametrize("ending", [".pt", ".pt2"])
def test_code_in_a_file_is_not_run_unless_it_is_trusted(
    ending: str, hgad: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TRUST_REMOTE_CODE")
    with pytest.raises(SystemExit):
        check(hgad.exports[ending], *of(hgad))
    assert "TRUST_REMOTE_CODE" in capsys.readouterr().err


def test_runtime_that_is_not_installed_is_named(
    hgad: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, onnxruntime.__name__, None)
    with pytest.raises(SystemExit):
        check(hgad.exports[".onnx"], *of(hgad))
    assert "pip install onnxruntime" in capsys.readouterr().err


@pytest.mark.nightly
def test_real_images(few_shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of one class are larger than the model's and of JPEG."""
    data = MultiClass(
        root=few_shared / "data",
        categories=["aws_cookie", "mvtec_hazelnut"],
        num_workers=0,
        val_split_mode="same_as_test",
    )
    weights = few_shared / "weights/resnet18_timm_stem_l123.safetensors"
    model = Hgad(backbone_weights=weights, image_size=128, visualizer=False, seed=0)
    run = engine(tmp_path)
    run.fit(model, datamodule=data)
    graph = model.to_onnx(tmp_path)
    checkpoint = Path(run.trainer.default_root_dir) / "weights/lightning/model.ckpt"
    arguments = ["--data.root", few_shared / "data", "--data.categories", "[aws_cookie,mvtec_hazelnut]"]
    assert check(graph, to_openvino(model, graph, tmp_path), "--ckpt_path", checkpoint, *arguments) == 0
    assert f"{few_shared}" in capsys.readouterr().out

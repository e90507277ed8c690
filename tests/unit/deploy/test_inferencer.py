# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the inferencer that says the class, on every kind of image that a camera or a user may give it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import OpenVINOInferencer
from PIL import Image

from anomalib_hgad import Hgad
from anomalib_hgad.deploy.export import IN_FLOAT32
from anomalib_hgad.deploy.inferencer import ClassOpenVINOInferencer
from tests.helpers.light import LIGHT
from tests.helpers.paths import ROOT
from tests.helpers.trees import write_image

CLASSES = ["bolt", "gear wheel", "nut"]


@pytest.fixture(scope="module")
def module() -> Hgad:
    torch.manual_seed(0)
    np.random.seed(0)
    module = Hgad(**LIGHT, post_processor=False)
    module.set_class_names(CLASSES)
    return module.eval()


@pytest.fixture(scope="module")
def files(module: Hgad, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    return {"onnx": module.to_onnx(folder), "openvino": module.to_openvino(folder)}


@pytest.fixture(scope="module")
def inferencer(files: dict[str, Path]) -> ClassOpenVINOInferencer:
    return ClassOpenVINOInferencer(files["openvino"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_scores_and_class_are_the_models(
    kind: str, files: dict[str, Path], module: Hgad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the scores are those of anomalib's inferencer on the same file."""
    monkeypatch.chdir(tmp_path)  # anomalib's leaves a cache where it is
    path = write_image(tmp_path / "image.png", size=(50, 40))
    inferencer = ClassOpenVINOInferencer(files[kind])
    prediction = inferencer.predict(path)
    stock = OpenVINOInferencer(files[kind], "CPU", IN_FLOAT32).predict(path)
    images = read_image(path, as_tensor=True).unsqueeze(0)
    with torch.no_grad():
        expected, _ = module.model.predict(module.pre_processor.transform(images))
    np.testing.assert_allclose(prediction.pred_score, expected.pred_score.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.squeeze(prediction.anomaly_map), np.squeeze(stock.anomaly_map), rtol=0, atol=1e-6)
    assert prediction.pred_class_name == [CLASSES[expected.class_posterior.argmax()]]
    assert prediction.pred_class_index.tolist() == [expected.class_posterior.argmax()]
    assert inferencer.description["class_names"] == CLASSES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "colour", "size", "suffix", "rgb"),
    [
        ("L", 200, (40, 30), ".png", (200, 200, 200)),
        ("RGBA", (9, 99, 199, 0), (40, 30), ".png", (9, 99, 199)),
        ("CMYK", (0, 0, 0, 0), (40, 30), ".jpg", (255, 255, 255)),
        ("RGB", (9, 99, 199), (1, 1), ".png", (9, 99, 199)),
        ("RGB", (9, 99, 199), (3000, 2), ".png", (9, 99, 199)),
    ],
)
def test_images_of_other_kinds_score_as_the_colours_they_show(
    inferencer: ClassOpenVINOInferencer,
    tmp_path: Path,
    mode: str,
    colour: tuple[int, ...],
    size: tuple[int, int],
    suffix: str,
    rgb: tuple[int, int, int],
) -> None:
    path = (tmp_path / "image").with_suffix(suffix)
    Image.new(mode, size, colour).save(path)
    prediction = inferencer.predict(path)
    expected = inferencer.predict(np.full((size[1], size[0], 3), rgb, dtype=np.uint8))
    np.testing.assert_allclose(prediction.pred_score, expected.pred_score, rtol=1e-5)
    assert prediction.pred_class_name == expected.pred_class_name


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"this is text", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_image_is_named(inferencer: ClassOpenVINOInferencer, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image 7.png"
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"image 7\.png cannot be read.*Replace the file"):
        inferencer.predict(path)


@pytest.mark.slow
def test_grey_values_that_would_be_cut_off_are_refused(inferencer: ClassOpenVINOInferencer, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(OSError, match=r"deep\.png cannot be read: its grey values have more than 8 bits"):
        inferencer.predict(tmp_path / "deep.png")


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_array_of_numbers_that_are_not_finite(inferencer: ClassOpenVINOInferencer, value: float) -> None:
    pixels = np.zeros((3, 3, 20, 20), dtype=np.float32)
    pixels[1, 0, 3, 4] = value
    with pytest.raises(ValueError, match=r"finite numbers, got NaN or infinity in .*number 1 of the batch"):
        inferencer.predict(pixels)


@pytest.mark.slow
def test_batches_and_arrays(inferencer: ClassOpenVINOInferencer) -> None:
    """An array from 0 to 255 scores as the PIL image."""
    pixels = np.random.default_rng(0).integers(0, 255, (36, 44, 3), dtype=np.uint8)
    alone = inferencer.predict(pixels)
    np.testing.assert_allclose(inferencer.predict(Image.fromarray(pixels)).pred_score, alone.pred_score, atol=1e-4)
    batch = inferencer.predict(np.stack([pixels.transpose(2, 0, 1)] * 3))
    np.testing.assert_allclose(batch.pred_score, np.repeat(alone.pred_score, 3), atol=1e-4)
    assert batch.pred_class_name == alone.pred_class_name * 3


@pytest.mark.slow
def test_program_in_cpp_says_what_python_says(
    inferencer: ClassOpenVINOInferencer, files: dict[str, Path], tmp_path: Path
) -> None:
    """The program of docs/deployment.md, compiled with what OpenVINO's package brings."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the program with")
    page = (ROOT / "docs/deployment.md").read_text()
    (program,) = re.findall(r"^```cpp\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "inspect.cpp").write_text(program)
    package = Path(openvino.__file__).parent
    (library,) = (package / "libs").glob("libopenvino.so.*")
    flags = [f"-I{package / 'include'}", str(library), f"-Wl,-rpath,{package / 'libs'}", "-std=c++17"]
    subprocess.run([compiler, tmp_path / "inspect.cpp", *flags, "-o", tmp_path / "inspect"], check=True)
    image = write_image(tmp_path / "image.ppm", size=(50, 40))
    process = subprocess.run(
        [tmp_path / "inspect", files["openvino"], image], capture_output=True, text=True, check=True
    )
    score, index = process.stdout.split()
    expected = inferencer.predict(image)
    assert float(score) == pytest.approx(expected.pred_score.item(), rel=1e-4)
    assert int(index) == expected.pred_class_index.item()


@pytest.mark.slow
def test_model_of_one_class(tmp_path: Path) -> None:
    single = Hgad(**LIGHT, post_processor=False)
    single.set_class_names(["bolt"])
    inferencer = ClassOpenVINOInferencer(single.to_onnx(tmp_path))
    assert inferencer.predict(np.zeros((32, 32, 3), dtype=np.uint8)).pred_class_name == ["bolt"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No file at .*Export a model"):
        ClassOpenVINOInferencer(tmp_path / "model.xml")
    with pytest.raises(ValueError, match=r"Expected an exported \.xml or \.onnx file, got .*model\.pt"):
        ClassOpenVINOInferencer(tmp_path / "model.pt")
    parameter = openvino.opset13.parameter([1, 3], np.float32)
    openvino.save_model(openvino.Model([openvino.opset13.relu(parameter)], [parameter]), tmp_path / "other.xml")
    with pytest.raises(ValueError, match="does not say that it is an exported model"):
        ClassOpenVINOInferencer(tmp_path / "other.xml")

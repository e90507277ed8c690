# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the inferencer that says the class, on every kind of image that a camera or a user may give it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.deploy import OpenVINOInferencer
from PIL import Image

from anomalib_hgad import Hgad
from anomalib_hgad.deploy.graph import IN_FLOAT32
from anomalib_hgad.deploy.inferencer import ClassInferencer, ClassONNXInferencer, ClassOpenVINOInferencer
from anomalib_hgad.models.hgad.novelty import WIDE_MARGIN
from tests.helpers.drawn_models import brightness_model
from tests.helpers.light import LIGHT
from tests.helpers.light_run import CLASSES, LightRun
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def files(light_run: LightRun) -> dict[str, Path]:
    return {"onnx": light_run.run.exports[".onnx"], "openvino": light_run.run.exports[".xml"]}


@pytest.fixture(scope="module")
def inferencer(files: dict[str, Path]) -> ClassOpenVINOInferencer:
    return ClassOpenVINOInferencer(files["openvino"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_scores_and_class_are_the_models(
    kind: str, files: dict[str, Path], light_run: LightRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the scores are those of anomalib's inferencer on the same file."""
    monkeypatch.chdir(tmp_path)  # anomalib's leaves a cache where it is
    path, module = light_run.images["known", "good"], light_run.model
    inferencer = ClassOpenVINOInferencer(files[kind])
    prediction = inferencer.predict(path)
    stock = OpenVINOInferencer(files[kind], "CPU", IN_FLOAT32).predict(path)
    images = read_image(path, as_tensor=True).unsqueeze(0)
    with torch.no_grad():
        prepared = module.pre_processor.transform(images)
        expected, _ = module.model.predict(prepared)
        score = module.post_processor(module.model(prepared)).pred_score
    np.testing.assert_allclose(prediction.pred_score, score.numpy(), rtol=1e-3, atol=1e-4)
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


def drawn_dark() -> np.ndarray:
    """A picture of zeros and ones of 255, which was taken for black and white."""
    return np.random.default_rng(0).integers(0, 2, (36, 44, 3), dtype=np.uint8)


def drawn_bright() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (36, 44, 3), dtype=np.uint8)


def grey() -> np.ndarray:
    return np.repeat(drawn_bright()[..., :1], 3, axis=2)


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 7)], axis=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pixels", "given"),
    [
        (drawn_dark(), drawn_dark()),
        (drawn_bright(), drawn_bright()[::-1][::-1]),
        (drawn_bright(), drawn_bright().transpose(2, 0, 1)),
        (drawn_bright(), drawn_bright()[None]),
        (drawn_bright(), with_alpha(drawn_bright())),
        (drawn_bright(), with_alpha(drawn_bright()).transpose(2, 0, 1)[None]),
        (drawn_bright(), (drawn_bright() / 255).astype(np.float32)),
        (drawn_bright(), drawn_bright() / 255),
        (drawn_dark(), (drawn_dark() / 255).astype(np.float16)),
        (grey(), grey()[..., 0]),
        (grey(), grey()[..., :1]),
        (255 * drawn_dark()[..., :1].repeat(3, axis=2), drawn_dark()[..., 0].astype(bool)),
        (drawn_bright(), torch.from_numpy(drawn_bright())),
        (drawn_bright(), torch.from_numpy(drawn_bright().transpose(2, 0, 1) / 255).requires_grad_()),
        (drawn_bright(), Image.fromarray(with_alpha(drawn_bright()), "RGBA")),
        (grey(), Image.fromarray(grey()[..., 0])),
    ],
    ids=[
        "dark",
        "view",
        "CHW",
        "BHWC",
        "RGBA",
        "BCHW4",
        "float32",
        "float64",
        "float16",
        "HW",
        "HW1",
        "truth",
        "tensor",
        "float_tensor",
        "RGBA_picture",
        "grey_picture",
    ],
)
def test_array_scores_as_the_same_picture_in_a_file(
    inferencer: ClassOpenVINOInferencer, tmp_path: Path, pixels: np.ndarray, given: Any
) -> None:
    """And is not changed."""
    Image.fromarray(pixels).save(tmp_path / "image.png")
    before = given.clone() if isinstance(given, torch.Tensor) else given.copy()
    score = inferencer.predict(given).pred_score
    np.testing.assert_allclose(score, inferencer.predict(tmp_path / "image.png").pred_score, rtol=2e-3)
    assert torch.equal(given, before) if isinstance(given, torch.Tensor) else np.array_equal(given, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (drawn_bright().astype(np.uint16), r"got uint16 of shape \(36, 44, 3\)"),
        (drawn_bright().astype(np.int64), r"got int64 of shape \(36, 44, 3\)"),
        (drawn_bright().astype(np.float32), r"got float32 of shape \(36, 44, 3\) from 0 to 255"),
        (drawn_bright() / 255 - 0.5, r"got float64 of shape \(36, 44, 3\) from -0.5 to 0.5"),
        (drawn_bright()[..., :2], r"got uint8 of shape \(36, 44, 2\)"),
        (drawn_bright()[0, 0], r"got uint8 of shape \(3,\)"),
        (drawn_bright()[:0], r"got uint8 of shape \(0, 44, 3\)"),
        (torch.from_numpy(drawn_bright()).int(), r"got int32 of shape \(36, 44, 3\)"),
    ],
)
def test_other_arrays_are_refused_by_dtype_and_shape(
    inferencer: ClassOpenVINOInferencer, given: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=f"Expected uint8 .*{said}"):
        inferencer.predict(given)


@pytest.mark.slow
def test_what_is_no_picture_is_refused(inferencer: ClassOpenVINOInferencer) -> None:
    with pytest.raises(TypeError, match="an array or a tensor, got list"):
        inferencer.predict([1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(OSError, match=r"mode I;16 and size \(20, 30\) cannot be read: its grey values"):
        inferencer.predict(Image.fromarray(np.full((30, 20), 40000, dtype=np.uint16)))


@pytest.mark.slow
def test_threads_share_an_inferencer(inferencer: ClassOpenVINOInferencer) -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (36, 44, 3), dtype=np.uint8) for seed in range(12)]
    expected = [inferencer.predict(picture).pred_score.item() for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        actual = [prediction.pred_score.item() for prediction in pool.map(inferencer.predict, pictures)]
    assert actual == expected
    assert len(set(expected)) == len(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_runtime", "kind"),
    [(ClassOpenVINOInferencer, "onnx"), (ClassOpenVINOInferencer, "openvino"), (ClassONNXInferencer, "onnx")],
)
def test_unknown_product_is_called_so_whatever_its_label(
    files: dict[str, Path], light_run: LightRun, of_runtime: type[ClassInferencer], kind: str
) -> None:
    inferencer = of_runtime(files[kind])
    assert inferencer.description["novelty_limit"] == 1
    for (known, label), path in light_run.images.items():
        image = read_image(path, as_tensor=True).unsqueeze(0)
        prediction = inferencer.predict(path)
        with torch.no_grad():
            expected = light_run.model.model.predict(light_run.model.pre_processor.transform(image))[0]
        index = int(expected.class_posterior.argmax())
        assert prediction.novelty == pytest.approx([expected.novelty.item()], rel=1e-3, abs=1e-4)
        assert prediction.pred_class_index.tolist() == [index]
        assert prediction.pred_class_name == ["unknown" if known == "unknown" else CLASSES[index]]
        assert bool(prediction.pred_label.item()) is (label == "bad")


@pytest.mark.slow
def test_unknown_product_in_a_batch(files: dict[str, Path], light_run: LightRun) -> None:
    kinds = [("unknown", "bad"), ("known", "bad"), ("unknown", "good")]
    images = [read_image(light_run.images[kind], as_tensor=True).numpy() for kind in kinds]
    prediction = ClassOpenVINOInferencer(files["openvino"]).predict(np.stack(images))
    assert [novelty > 1 for novelty in prediction.novelty] == [True, False, True]
    assert [name == "unknown" for name in prediction.pred_class_name] == [True, False, True]


@pytest.mark.parametrize("without", [["image_threshold"], ["pixel_threshold"], ["image_threshold", "pixel_threshold"]])
def test_model_without_thresholds_gives_neither_label_nor_mask(without: list[str], tmp_path: Path) -> None:
    """Its graph compares raw values with 0.5."""
    path = brightness_model(tmp_path / "model.xml", image_size=[5, 7], **dict.fromkeys(without))
    prediction = ClassOpenVINOInferencer(path).predict(np.full((5, 7, 3), 200, dtype=np.uint8))
    assert (prediction.pred_label is None) == ("image_threshold" in without)
    assert (prediction.pred_mask is None) == ("pixel_threshold" in without)
    assert prediction.pred_score == pytest.approx(200 / 255)


@pytest.mark.slow
def test_onnxruntime_says_what_openvino_says(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is called from: the weights lie beside the file."""
    monkeypatch.chdir(files["onnx"].parents[2])
    images = np.random.default_rng(0).random((3, 3, 36, 44), dtype=np.float32)
    expected, found = (
        inferencer.predict(images)
        for inferencer in (ClassOpenVINOInferencer(files["onnx"]), ClassONNXInferencer(files["onnx"]))
    )
    for name in ("pred_score", "anomaly_map", "novelty"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4, err_msg=name)
    assert found.pred_class_name == expected.pred_class_name
    assert found.pred_class_index.tolist() == expected.pred_class_index.tolist()


@pytest.mark.slow
def test_providers_are_onnxruntimes(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, with their options."""
    given: list[Any] = []
    make = onnxruntime.InferenceSession
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    class Session:
        """As on a machine that has them."""

        def __init__(self, graph: bytes, options: Any, providers: list[Any]) -> None:
            given.append(providers)
            self.inner = make(graph, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return available

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    wanted = [("TensorrtExecutionProvider", {"trt_engine_cache_enable": True}), "CUDAExecutionProvider"]
    inferencer = ClassONNXInferencer(files["onnx"], providers=wanted)
    assert given == [wanted]
    assert inferencer.predict(np.zeros((20, 20, 3), dtype=np.uint8)).pred_score.shape == (1,)


@pytest.mark.slow
def test_no_other_provider_computes_in_the_place_of_one_that_is_not_there(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime itself falls back to the CPU: without a word, or with one in its log."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(RuntimeError, match=r"has no CUDAExecutionProvider; it has .*Install a build that has it"):
        ClassONNXInferencer(files["onnx"], providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    # As where the package is for CUDA and its libraries are missing.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(RuntimeError, match="cannot use CUDAExecutionProvider here, and would compute with CPUExec"),
    ):
        ClassONNXInferencer(files["onnx"], providers=["CUDAExecutionProvider"])


@pytest.mark.slow
def test_program_says_unknown_in_place_of_good_or_bad(
    files: dict[str, Path], light_run: LightRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of docs/how-to/deployment.md in Python; those in C++ have tests of their own."""
    page = (ROOT / "docs/how-to/deployment.md").read_text()
    programs = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (program,) = (text for text in programs if "import ClassOpenVINOInferencer" in text)
    program = program.replace("exported/weights/openvino/model.xml", str(files["openvino"]))
    for (known, label), path in light_run.images.items():
        exec(program.replace("datasets/products/bolt/test/crack/000.png", str(path)), {})
        verdict = "unknown" if known == "unknown" else label
        assert capsys.readouterr().out.split()[0] == verdict


@pytest.mark.slow
@pytest.mark.nightly
def test_model_of_one_class(tmp_path: Path) -> None:
    single = Hgad(**LIGHT, post_processor=False)
    single.set_class_names(["bolt"])
    single.model.novelty.margin.fill_(WIDE_MARGIN)
    path = single.to_onnx(tmp_path)
    for inferencer in (ClassOpenVINOInferencer(path), ClassONNXInferencer(path)):
        prediction = inferencer.predict(np.zeros((32, 32, 3), dtype=np.uint8))
        assert prediction.pred_class_name == ["bolt"]
        assert prediction.pred_class_index.tolist() == [0]


@pytest.mark.slow
@pytest.mark.nightly
def test_single_gaussian_of_several_classes_names_none(tmp_path: Path) -> None:
    """As in PyTorch; but it has a novelty."""
    single = Hgad(**LIGHT, prior="single_gaussian", post_processor=False)
    single.set_class_names(CLASSES)
    prediction = ClassOpenVINOInferencer(single.to_onnx(tmp_path)).predict(np.zeros((32, 32, 3), dtype=np.uint8))
    assert prediction.pred_class_name is None
    assert prediction.pred_class_index is None
    assert np.isfinite(prediction.novelty).all()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No file at .*Export a model"):
        ClassOpenVINOInferencer(tmp_path / "model.xml")
    with pytest.raises(ValueError, match=r"Expected an exported \.xml or \.onnx file, got .*model\.pt"):
        ClassOpenVINOInferencer(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"Expected an exported \.onnx file, got .*model\.xml"):
        ClassONNXInferencer(tmp_path / "model.xml")
    parameter = openvino.opset13.parameter([1, 3], np.float32)
    openvino.save_model(openvino.Model([openvino.opset13.relu(parameter)], [parameter]), tmp_path / "other.xml")
    with pytest.raises(ValueError, match="is not an exported model"):
        ClassOpenVINOInferencer(tmp_path / "other.xml")
    graph = openvino.Model([openvino.opset13.relu(parameter)], [parameter])
    graph.set_rt_info("null", ["model_info", "class_tensor"])
    openvino.save_model(graph, tmp_path / "old.xml")
    with pytest.raises(ValueError, match=r"old\.xml was exported by an older version.*export the model again"):
        ClassOpenVINOInferencer(tmp_path / "old.xml")

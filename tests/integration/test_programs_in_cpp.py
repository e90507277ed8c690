# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The programs of docs/cpp, compiled where compiler and libraries are: they say what the inferencer in Python says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image

from anomalib_hgad import ClassOpenVINOInferencer, Hgad
from anomalib_hgad.models.hgad.novelty import WIDE_MARGIN
from tests.helpers.exports import to_openvino
from tests.helpers.light import LIGHT
from tests.helpers.light_run import LightRun
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

CLASSES = ['a "quoted" \\ name', "Schräubchen", "볼트 \U0001f529"]
RUNTIMES = pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])


@pytest.fixture(scope="module")
def files(light_run: LightRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each program takes; the classes have other names than in training."""
    folder = tmp_path_factory.mktemp("model")
    graph = openvino.Core().read_model(light_run.run.exports[".xml"])
    graph.set_rt_info(json.dumps(CLASSES), ["model_info", "class_names"])
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    content = onnx.load(light_run.run.exports[".onnx"])
    (names,) = (entry for entry in content.metadata_props if entry.key == "class_names")
    names.value = json.dumps(CLASSES)
    onnx.save(content, folder / "model.onnx")
    return {"openvino": folder / "model.xml", "onnxruntime": with_class(folder / "model.onnx")}


def set_thresholds(module: Hgad, scores: torch.Tensor, pixels: torch.Tensor) -> None:
    for kind, values in (("image", scores), ("pixel", pixels)):
        setattr(module.post_processor, f"_{kind}_threshold", values.median())
        setattr(module.post_processor, f"{kind}_min", values.min() - 1)
        setattr(module.post_processor, f"{kind}_max", values.max() + 1)


def with_class(graph: Path) -> Path:
    """The graph with what the program needs, by the code of the page."""
    path = graph.with_name("with_class.onnx")
    page = (ROOT / "docs/how-to/deployment.md").read_text()
    (block,) = (
        text
        for text in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
        if "with_class.onnx" in text
    )
    block = block.replace("exported/weights/onnx/with_class.onnx", str(path))
    exec(block.replace("exported/weights/onnx/model.onnx", str(graph)), {})
    return path


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Those that can be built here."""
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("no cmake and C++ compiler to build the programs with")
    folder = tmp_path_factory.mktemp("build")
    package = Path(openvino.__file__).parent
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    # Linked by the name that the library says it has, which a link has in its package's releases.
    (folder / "libonnxruntime.so.1").symlink_to(library)
    settings = [
        f"-DOpenVINO_DIR={package / 'cmake'}",
        f"-DONNXRUNTIME_LIBRARY={folder / 'libonnxruntime.so.1'}",
        "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror",
    ]
    configured = subprocess.run(
        ["cmake", "-S", ROOT / "docs/cpp", "-B", folder, *settings], capture_output=True, text=True, check=False
    )
    for library_name in ("PNG", "JPEG"):
        if f"Could NOT find {library_name}" in configured.stderr:
            pytest.skip(f"no {library_name} library to build the programs with")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(["cmake", "--build", folder], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return {path.name.removeprefix("inspect_"): path for path in folder.glob("inspect_*")}


def run(programs: dict[str, Path], runtime: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    if runtime not in programs:
        pytest.skip(f"no headers of {runtime} to build its program with")
    return subprocess.run([programs[runtime], *arguments], capture_output=True, text=True, check=False)


def drawn(size: tuple[int, int] = (50, 40), seed: int = 0) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@RUNTIMES
@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1"])
def test_png_is_inspected_as_in_python(
    runtime: str, mode: str, files: dict[str, Path], programs: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "image 볼트.png"
    drawn().convert(mode).save(path)
    expected = ClassOpenVINOInferencer(files["openvino"]).predict(path)
    done = run(programs, runtime, files[runtime], path, tmp_path / "mask.png")
    assert done.returncode == 0, done.stderr
    verdict, score, novelty, name = done.stdout.rstrip("\n").split(" ", 3)
    label = "bad" if expected.pred_label.item() else "good"
    assert verdict == ("unknown" if expected.pred_class_name == ["unknown"] else label)
    assert float(score) == pytest.approx(expected.pred_score.item(), rel=1e-4)
    assert float(novelty) == pytest.approx(expected.novelty.item(), rel=1e-3, abs=1e-3)
    assert [name] == expected.pred_class_name
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    # One value may be that of all pixels; but that of noise in colour is not.
    assert set(np.unique(mask)) == {0, 255} if mode == "RGB" else set(np.unique(mask)) <= {0, 255}
    assert ((mask > 0) != np.squeeze(expected.pred_mask)).mean() < 0.01


@RUNTIMES
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_inspected_up_to_the_rounding_of_decoders(
    runtime: str, mode: str, files: dict[str, Path], programs: dict[str, Path], tmp_path: Path
) -> None:
    """Libraries decode to values that may differ by a level of 255; a score moves as the image does."""
    path = tmp_path / "image.jpg"
    drawn().convert(mode).save(path, quality=90)
    inferencer = ClassOpenVINOInferencer(files["openvino"])
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(np.int64)
    levels = [inferencer.predict((pixels + by).clip(0, 255).astype(np.uint8)).pred_score.item() for by in (-1, 0, 1)]
    done = run(programs, runtime, files[runtime], path, tmp_path / "mask.png")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[1]) == pytest.approx(levels[1], abs=max(np.ptp(levels), 1e-3))


@RUNTIMES
def test_unknown_product_is_neither_good_nor_bad(
    runtime: str, light_run: LightRun, files: dict[str, Path], programs: dict[str, Path], tmp_path: Path
) -> None:
    for (known, label), path in light_run.images.items():
        said = run(programs, runtime, files[runtime], path, tmp_path / "mask.png").stdout.split()
        assert said[0] == ("unknown" if known == "unknown" else label)
        assert (said[3] == "unknown", float(said[2]) > 1) == ((known == "unknown",) * 2)


@pytest.mark.nightly
@RUNTIMES
def test_model_of_one_class_names_it(runtime: str, programs: dict[str, Path], tmp_path: Path) -> None:
    module = Hgad(**LIGHT).eval()
    module.set_class_names(["gear wheel"])
    module.model.novelty.margin.fill_(WIDE_MARGIN)
    set_thresholds(module, torch.zeros(1), torch.zeros(1))
    graph = module.to_onnx(tmp_path)
    drawn().save(tmp_path / "image.png")
    if runtime == "openvino":
        path = to_openvino(module, graph, tmp_path)
    else:
        content = onnx.load(graph)
        content.graph.output.append(onnx.helper.make_tensor_value_info("novelty", onnx.TensorProto.FLOAT, None))
        onnx.save(content, path := tmp_path / "with_novelty.onnx")
    said = run(programs, runtime, path, tmp_path / "image.png", tmp_path / "mask.png").stdout
    assert said.rstrip("\n").split(" ", 3)[3] == "gear wheel"


def cut(path: Path, form: str) -> None:
    drawn((200, 150)).save(path, format=form)
    path.write_bytes(path.read_bytes()[:-5000])


@RUNTIMES
@pytest.mark.parametrize(
    ("write", "said"),
    [
        pytest.param(lambda _: None, "no image at", id="none"),
        pytest.param(lambda path: path.write_text("no image"), "is neither PNG nor JPEG", id="text"),
        pytest.param(lambda path: path.write_bytes(b""), "is neither PNG nor JPEG", id="empty"),
        pytest.param(
            lambda path: Image.fromarray(np.full((20, 20), 40000, dtype=np.uint16)).save(path, format="PNG"),
            "more than 8 bits",
            id="16 bits",
        ),
        pytest.param(lambda path: cut(path, "PNG"), "Read Error", id="png cut short"),
        pytest.param(lambda path: cut(path, "JPEG"), "cut short", id="jpeg cut short"),
        pytest.param(
            lambda path: drawn().convert("CMYK").save(path, format="JPEG"), "color conversion", id="jpeg for printing"
        ),
    ],
)
def test_image_that_cannot_be_read_gets_no_verdict(
    runtime: str,
    write: Callable[[Path], object],
    said: str,
    files: dict[str, Path],
    programs: dict[str, Path],
    tmp_path: Path,
) -> None:
    write(tmp_path / "image")
    done = run(programs, runtime, files[runtime], tmp_path / "image", tmp_path / "mask.png")
    assert done.returncode != 0
    assert done.stdout == ""
    assert said in done.stderr


@RUNTIMES
def test_model_without_a_threshold_gives_no_verdict(
    runtime: str, files: dict[str, Path], programs: dict[str, Path], tmp_path: Path
) -> None:
    """And one without a threshold of pixels no mask."""
    drawn().save(image := tmp_path / "image.png")
    of_images, of_pixels = (
        run(programs, runtime, without_threshold(files, runtime, kind, tmp_path), image, tmp_path / "mask")
        for kind in ("image", "pixel")
    )
    assert (of_images.returncode, of_images.stdout) == (2, "")
    assert "the model has no threshold between good and bad" in of_images.stderr
    assert of_pixels.returncode == 0
    assert of_pixels.stdout.split()[0] in {"good", "bad", "unknown"}
    assert "no mask is written" in of_pixels.stderr
    assert not (tmp_path / "mask").exists()


def without_threshold(files: dict[str, Path], runtime: str, kind: str, folder: Path) -> Path:
    """Its file, as that of a model without one of the thresholds."""
    if runtime == "openvino":
        graph = openvino.Core().read_model(files[runtime])
        graph.set_rt_info("null", ["model_info", f"{kind}_threshold"])
        openvino.save_model(graph, path := folder / f"no_{kind}.xml", compress_to_fp16=False)
        return path
    content = onnx.load(files[runtime])
    for entry in content.metadata_props:
        if entry.key == f"{kind}_threshold":
            entry.value = "null"
    onnx.save(content, path := folder / f"no_{kind}.onnx")
    return path


@RUNTIMES
def test_file_that_is_no_model_of_ours_is_refused(
    runtime: str, files: dict[str, Path], programs: dict[str, Path], tmp_path: Path
) -> None:
    drawn().save(tmp_path / "image.png")
    if runtime == "openvino":
        parameter = openvino.opset13.parameter([1, 3], np.float32)
        openvino.save_model(
            openvino.Model([openvino.opset13.relu(parameter)], [parameter]), path := tmp_path / "other.xml"
        )
    else:
        content = onnx.load(files[runtime])
        del content.metadata_props[:]
        onnx.save(content, path := tmp_path / "other.onnx")
    done = run(programs, runtime, path, tmp_path / "image.png", tmp_path / "mask.png")
    assert done.returncode == 2
    assert done.stderr == "the model does not say its class_names\n"
    assert run(programs, runtime, path).returncode == 2

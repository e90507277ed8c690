# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported formats of checkpoints side by side: size, speed, and what they change in the scores of real images.

The reference is each checkpoint in PyTorch, with images resized as in training and test. All are timed on images of
the size of the first, or of the only one that they take, and what takes images of any size on a large one too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import openvino
import torch
from anomalib.deploy import CompressionType, TorchInferencer
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.data.batch import ClassImageItem
from anomalib_hgad.deploy.export import CLASS_TENSOR, OPSET
from anomalib_hgad.deploy.graph import IN_FLOAT32
from tests.benchmarks.accuracy import mean_aurocs
from tests.benchmarks.markdown import markdown
from tests.benchmarks.measure import environment, median_seconds_of_streams
from tests.helpers.exports import Outputs, Predict, from_onnx, from_openvino

BATCHES = (1, 8)
LARGE = (1024, 1024)
"""Height and width of an image as a camera makes it."""

COMPRESSIONS = {
    "OpenVINO FP32": None,
    "OpenVINO FP16": CompressionType.FP16,
    "OpenVINO INT8, weights": CompressionType.INT8,
    "OpenVINO INT8_PTQ": CompressionType.INT8_PTQ,
}

FURTHER = ("PyTorch", "ONNX", "OpenVINO FP32", "OpenVINO INT8_PTQ")
"""Formats of all checkpoints but the first."""

OF_ONE_SIZE = ("OpenVINO FP32", "OpenVINO INT8_PTQ")
"""Formats that are also exported for images of the model's size alone."""


class Format(NamedTuple):
    """An exported format: its files, and what loads them."""

    files: list[Path]
    load: Callable[[], Predict]


def from_torch(module: Hgad) -> Predict:
    """Predictions of a module."""

    def predict(images: np.ndarray) -> Outputs:
        with torch.no_grad():
            return {name: value.numpy() for name, value in module(torch.from_numpy(images))._asdict().items()}

    return predict


def exported(module: Hgad, datamodule: MultiClass, folder: Path, names: Sequence[str]) -> dict[str, Format]:
    """Formats by their names."""
    torch_file = module.to_torch(folder) if "torch" in names else Path()
    onnx_file = module.to_onnx(folder)
    formats = {
        "torch": Format([torch_file], lambda: from_torch(TorchInferencer(torch_file, device="cpu").model)),
        "ONNX": Format([onnx_file, onnx_file.with_name(onnx_file.name + ".data")], lambda: from_onnx(onnx_file)),
    }
    for name in (name for name in names if name in COMPRESSIONS):
        file = openvino_file(module, datamodule, folder, name)
        formats[name] = Format([file, file.with_suffix(".bin")], lambda file=file: from_openvino(file))
    module.pre_processor.export_transform = module.pre_processor.transform
    formats["PyTorch"] = Format([], lambda: from_torch(module))
    return {name: formats[name] for name in names}


def openvino_file(
    module: Hgad, datamodule: MultiClass, folder: Path, name: str, input_size: tuple[int, int] | None = None
) -> Path:
    """An OpenVINO format."""
    return module.to_openvino(
        folder / name, compression_type=COMPRESSIONS[name], datamodule=datamodule, input_size=input_size
    )


class Scores(NamedTuple):
    """What a format says about all test images; classes where it says them."""

    scores: np.ndarray
    labels: np.ndarray
    maps: np.ndarray
    classes: np.ndarray | None


def score(predict: Predict, images: list[np.ndarray]) -> Scores:
    """Score image by image."""
    outputs = [predict(image) for image in images]
    scores, labels, maps = (
        np.stack([output[name].squeeze() for output in outputs]) for name in ("pred_score", "pred_label", "anomaly_map")
    )
    classes = [int(output[CLASS_TENSOR][0, 0]) for output in outputs if CLASS_TENSOR in output]
    return Scores(scores, labels, maps, np.array(classes) if classes else None)


def figures(of_format: Scores, reference: Scores, items: Sequence[ClassImageItem]) -> dict[str, float]:
    """Differences from PyTorch, relative to the range of its scores, and mean AUROC over the classes in percent."""
    result = {
        "score difference": np.abs(of_format.scores - reference.scores).max() / np.ptp(reference.scores),
        "its median": np.median(np.abs(of_format.scores - reference.scores)) / np.ptp(reference.scores),
        "map difference": np.abs(of_format.maps - reference.maps).max() / np.ptp(reference.maps),
        "same label, %": 100 * (of_format.labels == reference.labels).mean(),
        **mean_aurocs(of_format.scores, of_format.maps, items),
    }
    if of_format.classes is not None:
        result["same class, %"] = 100 * (of_format.classes == reference.classes).mean()
    return {name: float(value) for name, value in result.items()}


def run(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Export, load, score and time all formats of all checkpoints, and their backbones by themselves."""
    datamodule = MultiClass(root=arguments.data, eval_batch_size=1, num_workers=0)
    datamodule.setup()
    items = [datamodule.test_data[index] for index in range(len(datamodule.test_data))]
    images = [item.image.unsqueeze(0).numpy() for item in items]
    results: dict[str, dict[str, float]] = {}
    predictors: dict[str, Predict] = {}
    of_one_size: dict[str, tuple[tuple[int, int], Predict]] = {}
    first_size: tuple[int, int] | None = None
    every = ["PyTorch", "torch", "ONNX", *COMPRESSIONS]
    with TemporaryDirectory() as folder:
        for given in arguments.ckpt_path:
            prefix, _, path = given.rpartition("=")
            module = Hgad.load_from_checkpoint(path).eval().cpu()
            place, size = Path(folder) / prefix, module.model.image_size
            first_size = first_size or size
            reference = None
            forms = every if not results else [form for form in every if form in FURTHER]
            for form, (files, load) in exported(module, datamodule, place, forms).items():
                name = f"{prefix}, {form}"
                start = time.perf_counter()
                predictors[name] = load()
                results[name] = {"load, s": time.perf_counter() - start}
                if files:
                    results[name]["size, MB"] = sum(file.stat().st_size for file in files if file.exists()) / 1e6
                scores = score(predictors[name], images)
                if reference is None:
                    reference = scores._replace(classes=_classes(module, images))
                results[name] |= figures(scores, reference, items)
                print(name, results[name], flush=True)
            for form in (form for form in OF_ONE_SIZE if form in COMPRESSIONS):
                file = openvino_file(module, datamodule, place / "one size", form, size)
                of_one_size[f"{prefix}, {form}, images of one size"] = size, from_openvino(file)
            name = f"{prefix}, backbone alone, OpenVINO FP32"
            of_one_size[name] = size, backbone(module, place)
        large = {name: (LARGE, predict) for name, predict in predictors.items()}
        for name, seconds in seconds_of_all(large, 1).items():
            results[name]["latency, large image, ms"] = 1000 * seconds
        timed = {name: (first_size, predict) for name, predict in predictors.items()} | of_one_size
        for batch in BATCHES:
            for name, seconds in seconds_of_all(timed, batch).items():
                row = results.setdefault(name, {})
                row[f"latency, batch {batch}, ms"] = 1000 * seconds
                row[f"images/s, batch {batch}"] = batch / seconds
    return results


def seconds_of_all(predictors: dict[str, tuple[tuple[int, int], Predict]], batch: int) -> dict[str, float]:
    """Median seconds of every format for a batch of random images of its size, after others of them."""
    random = np.random.default_rng(0)
    stacks = {
        size: random.random((batch, 3, *size), dtype=np.float32) for size in {size for size, _ in predictors.values()}
    }
    return median_seconds_of_streams(
        **{
            name: lambda predict=predict, stack=stacks[size]: predict(stack)
            for name, (size, predict) in predictors.items()
        }
    )


def backbone(module: Hgad, folder: Path) -> Predict:
    """The backbone in OpenVINO, for images of the model's size."""
    file = folder / "backbone.onnx"
    torch.onnx.export(
        Levels(module.model.encoder).eval(),
        (torch.rand(2, 3, *module.model.image_size),),
        file,
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        verbose=False,
    )
    model = openvino.compile_model(openvino.Core().read_model(file), "CPU", IN_FLOAT32)
    return lambda images: {str(index): value.copy() for index, value in enumerate(model(images).values())}


class Levels(nn.Module):
    """An encoder, whose levels are a tuple."""

    def __init__(self, encoder: PyramidEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.encoder(images))


def _classes(module: Hgad, images: list[np.ndarray]) -> np.ndarray:
    predictions = [module.model.predict(module.pre_processor(torch.from_numpy(image)))[0] for image in images]
    return np.array([prediction.class_posterior.argmax().item() for prediction in predictions])


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown, a row for each format."""
    columns = list(dict.fromkeys(column for row in results.values() for column in row))
    rows = [
        [name, *(f"{row[column]:.4g}" if column in row else "–" for column in columns)] for name, row in results.items()
    ]
    return markdown(["", *columns], rows)


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True, nargs="+", metavar="NAME=FILE", help="checkpoints of Hgad")
    parser.add_argument("--data", type=Path, required=True, help="folder whose subfolders are classes in MVTec layout")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args(command)
    os.environ["TRUST_REMOTE_CODE"] = "1"  # of the files that are about to be written
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = run(arguments)
    print(table(results))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"made_with": environment(), "formats": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

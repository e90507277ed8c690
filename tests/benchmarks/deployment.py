# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported formats of a checkpoint side by side: size, speed, and what they change in the scores of real images."""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import openvino
import torch
from anomalib.data.utils import read_image, read_mask
from anomalib.deploy import CompressionType
from sklearn.metrics import roc_auc_score
from torchvision.transforms.v2.functional import resize

sys.path.insert(0, str(Path(__file__).parents[2]))

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.export import CLASS_TENSOR
from tests.benchmarks.measure import environment, median_seconds

logger = logging.getLogger(__name__)

Outputs = dict[str, np.ndarray]
Predict = Callable[[np.ndarray], Outputs]
SIZE = (256, 256)
BATCHES = (1, 8)


class Format(NamedTuple):
    """An exported format: its files, and what loads them."""

    files: list[Path]
    load: Callable[[], Predict]


def from_torch(module: torch.nn.Module) -> Predict:
    """Predictions of a PyTorch model; the class is that of the model inside."""

    def predict(images: np.ndarray) -> Outputs:
        with torch.no_grad():
            tensors = torch.from_numpy(images)
            return {name: value.numpy() for name, value in module(tensors)._asdict().items()}

    return predict


def from_onnx(path: Path) -> Predict:
    """Plain onnxruntime."""
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"input": images}), strict=True))


def from_openvino(path: Path) -> Predict:
    """OpenVINO in float32, with the class as a fifth output."""
    graph = openvino.Core().read_model(path)
    graph.add_outputs(CLASS_TENSOR)
    model = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: {output.any_name: value for output, value in model(images).items()}


def exported(module: Hgad, datamodule: MultiClass, folder: Path) -> dict[str, Format]:
    """All formats."""
    torch_file = module.to_torch(folder)
    onnx_file = module.to_onnx(folder)
    formats = {
        "PyTorch": Format([], lambda: from_torch(module)),
        "torch": Format([torch_file], lambda: from_torch(torch.load(torch_file, weights_only=False)["model"])),
        "ONNX": Format([onnx_file, onnx_file.with_name(onnx_file.name + ".data")], lambda: from_onnx(onnx_file)),
    }
    for name, compression in (
        ("OpenVINO FP32", None),
        ("OpenVINO FP16", CompressionType.FP16),
        ("OpenVINO INT8", CompressionType.INT8),
        ("OpenVINO INT8_PTQ", CompressionType.INT8_PTQ),
    ):
        file = module.to_openvino(folder / name.replace(" ", "_"), compression_type=compression, datamodule=datamodule)
        formats[name] = Format([file, file.with_suffix(".bin")], lambda file=file: from_openvino(file))
    return formats


class Scores(NamedTuple):
    """What a format says about all test images."""

    scores: np.ndarray
    maps: np.ndarray
    classes: np.ndarray


def score(predict: Predict, images: list[np.ndarray], inferred: np.ndarray) -> Scores:
    """Score image by image; where a format has no class, the given ones are taken."""
    outputs = [predict(image) for image in images]
    classes = [
        int(output[CLASS_TENSOR][0, 0]) if CLASS_TENSOR in output else given
        for output, given in zip(outputs, inferred, strict=True)
    ]
    scores = np.array([float(output["pred_score"].squeeze()) for output in outputs])
    return Scores(scores, np.stack([output["anomaly_map"].reshape(SIZE) for output in outputs]), np.array(classes))


def figures(of_format: Scores, reference: Scores, samples: Any) -> dict[str, float]:
    """Differences from PyTorch, relative to the range of its scores, and mean AUROC over the classes in percent."""
    image_aurocs, pixel_aurocs = [], []
    for _, rows in samples.groupby("class_index"):
        image_aurocs.append(roc_auc_score(rows["label_index"], of_format.scores[rows.index]))
        if rows["has_masks"].all():
            masks = [_mask(path) for path in rows["mask_path"]]
            pixel_aurocs.append(roc_auc_score(np.stack(masks).ravel(), of_format.maps[rows.index].ravel()))
    return {
        "score difference": np.abs(of_format.scores - reference.scores).max() / np.ptp(reference.scores),
        "map difference": np.abs(of_format.maps - reference.maps).max() / np.ptp(reference.maps),
        "same class, %": 100 * (of_format.classes == reference.classes).mean(),
        "image AUROC": 100 * statistics.mean(image_aurocs),
        "pixel AUROC": 100 * statistics.mean(pixel_aurocs),
    }


def _mask(path: str | None) -> np.ndarray:
    if not path:
        return np.zeros(SIZE, dtype=bool)
    return resize(read_mask(path, as_tensor=True).unsqueeze(0).float(), list(SIZE))[0].numpy() > 0.5


def run(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Export, load, score and time all formats."""
    module = Hgad.load_from_checkpoint(arguments.ckpt_path).eval().cpu()
    datamodule = MultiClass(root=arguments.data, eval_batch_size=1, num_workers=0)
    datamodule.setup()
    samples = datamodule.test_data.samples.reset_index(drop=True)
    images = [read_image(path, as_tensor=True).unsqueeze(0).numpy() for path in samples["image_path"]]
    with torch.no_grad():
        posteriors = [
            module.model.predict(module.pre_processor(torch.from_numpy(image)))[0].class_posterior for image in images
        ]
    inferred = torch.cat(posteriors).argmax(dim=-1).numpy()
    results: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        formats = exported(module, datamodule, Path(folder))
        predictors, reference = {}, None
        for name, (files, load) in formats.items():
            start = time.perf_counter()
            predictors[name] = load()
            results[name] = {
                "size, MB": sum(file.stat().st_size for file in files if file.exists()) / 1e6,
                "load, s": time.perf_counter() - start,
            }
            scores = score(predictors[name], images, inferred)
            reference = reference or scores
            results[name] |= figures(scores, reference, samples)
            logger.info("%s %s", name, results[name])
        for batch in BATCHES:
            stack = np.random.default_rng(0).random((batch, 3, *SIZE), dtype=np.float32)
            calls = {name: lambda predict=predict, stack=stack: predict(stack) for name, predict in predictors.items()}
            for name, seconds in median_seconds(**calls).items():
                results[name][f"latency, batch {batch}, ms"] = 1000 * seconds
                results[name][f"images/s, batch {batch}"] = batch / seconds
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown, a row a format."""
    columns = list(next(iter(results.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {name} | {' | '.join(f'{row[column]:.4g}' for column in columns)} |" for name, row in results.items()]
    return "\n".join(lines)


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a model for 256-pixel images")
    parser.add_argument("--data", type=Path, required=True, help="folder whose subfolders are classes in MVTec layout")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args(command)
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results = run(arguments)
    print(table(results))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"made_with": environment(), "formats": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Speed, memory and scores on a GPU, in float32 and bfloat16: python tests/benchmarks/gpu.py [--json FILE].

Weights are random and images made, so that it needs no files. Without a GPU all of it runs on the processor.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.gpu_model import Bench, Training, autocast, closed_form, flow_and_mixture
from tests.benchmarks.gpu_plan import CUT, FULL, Plan, Setting
from tests.benchmarks.measure import device, environment, median_seconds, peak_megabytes
from tests.helpers.constants import set_constants

Row = dict[str, Any]
Function = Callable[[], Any]

PRECISIONS = ("float32", "bfloat16")
SECTIONS = ("scores", "long training", "training", "inference", "onnx")
PROVIDERS = ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider")


def costs(functions: dict[str, Function], batch: int, calls: int, **row: Any) -> Iterator[Row]:
    """Time and memory of functions of a batch, side by side."""

    def in_a_row(function: Function) -> None:
        for _ in range(calls):
            function()

    seconds = median_seconds(**{name: partial(in_a_row, function) for name, function in functions.items()})
    for name, function in functions.items():
        cost = {"images/s": batch * calls / seconds[name], "ms": 1000 * seconds[name] / calls}
        cost["MB"] = peak_megabytes(partial(in_a_row, function))
        if torch.cuda.is_available():  # with what was there before: weights, optimiser, images
            cost["MB in all"] = torch.cuda.max_memory_allocated() / 1e6
        yield row | {"batch": batch, "what": name} | cost


def training(setting: Setting, bench: Bench) -> Iterator[Row]:
    """Training steps."""
    for batch in setting.training:
        images, class_index = bench.images(batch)
        for share in setting.shares:
            for precision in PRECISIONS:
                steps = Training(bench.module, share, precision)
                with autocast(precision):
                    features = bench.model.encoder(images)
                functions = {
                    "step from images": partial(steps.from_images, images, class_index),
                    "step from features": partial(steps.from_features, features, class_index),
                }
                yield from costs(functions, batch, setting.calls, precision=precision, position_share=share)


def inference(setting: Setting, bench: Bench) -> Iterator[Row]:
    """Inference, what its parts cost, and the simplest density of the same features."""
    bench.module.eval()
    for batch in setting.inference:
        images, class_index = bench.images(batch)
        for precision in PRECISIONS:
            with autocast(precision):
                features = bench.model.encoder(images)
            functions = {
                "whole model": partial(bench.model, images),
                "encoder alone": partial(bench.model.encoder, images),
                "flow and mixture": partial(flow_and_mixture, bench, features),
                "closed form, one class": partial(closed_form, bench, features, class_index),
            }
            in_precision = {name: autocast(precision)(function) for name, function in functions.items()}
            yield from costs(in_precision, batch, setting.calls, precision=precision)


def trained(
    model: Row, pool: int, precision: str, steps: int
) -> tuple[Bench, torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """A model after some steps on halves of a pool of images, with the losses, the pool's features and classes."""
    bench = Bench(model)
    images, class_index = bench.images(pool)
    with autocast(precision):
        features = bench.features(images)
    course = Training(bench.module, bench.module.position_share, precision)
    drawn = [torch.randperm(pool)[: pool // 2].to(device()) for _ in range(steps)]
    losses = [course.from_features([level[rows] for level in features], class_index[rows]) for rows in drawn]
    return bench, torch.stack(losses), features, class_index


def long_training(plan: Plan, model: Row) -> Iterator[Row]:
    """Many steps, whose losses and weights must stay finite."""
    for precision in PRECISIONS:
        start = time.perf_counter()
        bench, losses, *_ = trained(model, plan.pool, precision, plan.steps)
        finite = losses.isfinite().all() and all(weight.isfinite().all() for weight in bench.model.parameters())
        row = {"precision": precision, "steps": plan.steps, "batch": plan.pool // 2, "finite": bool(finite)}
        row |= {"first loss": losses[0].item(), "last loss": losses[-1].item(), "largest loss": losses.max().item()}
        yield row | {"seconds": time.perf_counter() - start}


def scores(plan: Plan, model: Row) -> Iterator[Row]:
    """Largest differences of the scores of one checkpoint from those in float32 on the processor."""
    bench, _, features, class_index = trained(model, plan.pool, "float32", plan.steps_before_scores)
    set_constants(bench.model, features, class_index)
    images, _ = bench.images(16)
    side = bench.model.image_size[0] // 4
    images[8:, :, side : 2 * side, side : 2 * side] = torch.randn(8, 3, side, side).to(images)  # half have a defect
    checkpoint = BytesIO()
    torch.save(bench.model.state_dict(), checkpoint)
    on_cpu = Bench(model).model.cpu().eval()
    checkpoint.seek(0)
    on_cpu.load_state_dict(torch.load(checkpoint, map_location="cpu"))
    reference, _ = on_cpu.predict(images.cpu())
    bench.model.eval()
    predictions = {}
    for name, tf32 in (("float32", True), ("float32, no TF32", False)):
        torch.backends.cudnn.allow_tf32 = tf32
        predictions[name], _ = bench.model.predict(images)
    torch.backends.cudnn.allow_tf32 = True
    with autocast("bfloat16"):
        predictions["bfloat16"], _ = bench.model.predict(images)
    predictions["float64 on the processor"], _ = on_cpu.double().predict(images.cpu().double())
    spans = {f"span of {name}": (values.max() - values.min()).item() for name, values in parts(reference).items()}
    for name, prediction in predictions.items():
        differences = {
            f"difference of {part}": (values.cpu() - parts(reference)[part]).abs().max().item()
            for part, values in parts(prediction).items()
        }
        same = prediction.class_posterior.argmax(dim=-1).cpu() == reference.class_posterior.argmax(dim=-1)
        yield {"what": name, "images": len(images)} | differences | spans | {"same class": int(same.sum())}


def parts(prediction: Any) -> dict[str, torch.Tensor]:
    """What is compared of a prediction."""
    return {"pred_score": prediction.pred_score, "anomaly_map": prediction.anomaly_map}


def onnx(setting: Setting, bench: Bench) -> Iterator[Row]:
    """Images per second of the exported graph, images in and scores out in main memory."""
    if find_spec("onnxruntime") is None:
        yield from ({"provider": provider, "state": "not installed"} for provider in PROVIDERS)
        return
    import onnxruntime  # noqa: PLC0415 - the rest runs without it

    with TemporaryDirectory() as folder:
        bench.module.is_trained = True  # random weights are as fast
        path = bench.module.cpu().to_onnx(folder)
        for provider in PROVIDERS:
            if provider not in onnxruntime.get_available_providers():
                yield {"provider": provider, "state": "not installed"}
                continue
            session = onnxruntime.InferenceSession(path, providers=[provider])
            if provider not in session.get_providers():  # it is there, but lacks a library of the GPU's
                yield {"provider": provider, "state": "does not load"}
                continue
            for batch in setting.inference:
                images = torch.rand(batch, 3, *bench.model.image_size).numpy()
                run = partial(session.run, None, {"input": images})
                yield {"provider": provider, "batch": batch, "images/s": batch / median_seconds(run=run)["run"]}


def made_with() -> dict[str, Any]:
    """What the measurement was made with."""
    driver = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return environment() | {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver,
        "timm": version("timm"),
        "TF32 in matrix products": torch.backends.cuda.matmul.allow_tf32,
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
    }


def measured(plan: Plan, sections: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """All rows of some sections, each with the section's name."""
    first, setting = next(iter(plan.settings.items()))
    for section, function in (("scores", scores), ("long training", long_training)):
        if section in sections:
            yield from ((section, {"setting": first} | row) for row in function(plan, setting.model))
    if {"training", "inference"} & set(sections):
        for name, each in plan.settings.items():
            bench = Bench(each.model)
            for section, measure in (("training", training), ("inference", inference)):
                if section in sections:
                    yield from ((section, {"setting": name} | row) for row in measure(each, bench))
    if "onnx" in sections:
        yield from (("onnx", {"setting": first} | row) for row in onnx(setting, Bench(setting.model)))


def main(command: list[str] | None = None) -> None:
    """Measure, print the rows, and write each to the JSON at once, so that a run that is cut off keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cut", action="store_true", help="all of it in miniature")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to run")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args(command)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"environment": made_with()}
    print(json.dumps(results["environment"]), flush=True)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for section, row in measured(CUT if arguments.cut else FULL, arguments.only):
                results.setdefault(section, []).append(row)
                print(f"{section}: {json.dumps(row)}", flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        logging.disable(disabled)


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Where the time of an exported OpenVINO file goes, by its parts and its slowest layers."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import openvino

from anomalib_hgad.common.files import write_json
from anomalib_hgad.deploy.module_names import module_in
from tests.benchmarks.markdown import markdown

REPEATS = 20
SLOWEST = 10

PARTS = {
    "pre_processor": "resizing, normalisation",
    "model.encoder": "backbone",
    "model.flows": "flows",
    "model.anomaly_map_generator": "upsampling, smoothing",
    "model": "densities, classes",
    "post_processor": "labels, mask",
}
"""Parts of a model by the beginning of the names of its modules; the first that fits."""

OTHER = "what OpenVINO adds"


def part_of(names: Sequence[str]) -> str:
    """Part of a model that a layer belongs to, by the names of its fused operations, which begin with their modules."""
    modules = [module for name in names if (module := module_in(name)) is not None]
    return next((part for start, part in PARTS.items() if modules and modules[0].startswith(start)), OTHER)


def operations(model: openvino.CompiledModel) -> dict[str, list[str]]:
    """Names of the operations that OpenVINO has fused in a layer, by the name of the layer."""
    layers = model.get_runtime_model().get_ordered_ops()
    return {
        layer.get_friendly_name(): layer.get_rt_info()["originalLayersNames"].astype(str).split(",") for layer in layers
    }


def run(path: Path, batch: int) -> dict[str, Any]:
    """Median milliseconds of an inference, of its parts and of its slowest layers, by one thread."""
    graph = openvino.Core().read_model(path)
    height, width = json.loads(graph.get_rt_info(["model_info", "image_size"]).astype(str))
    settings = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1}
    model = openvino.compile_model(graph, "CPU", settings)
    request, fused = model.create_infer_request(), operations(model)
    images = np.random.default_rng(0).random((batch, 3, height, width), dtype=np.float32)
    layers: dict[tuple[str, str], list[float]] = defaultdict(list)
    for repeat in range(-1, REPEATS):
        request.infer([images])
        for layer in request.profiling_info if repeat >= 0 else []:
            layers[layer.node_name, layer.node_type].append(1000 * layer.real_time.total_seconds())
    medians = {layer: statistics.median(times) for layer, times in layers.items()}
    parts: dict[str, float] = defaultdict(float)
    for (name, _), milliseconds in medians.items():
        parts[part_of([name, *fused.get(name, [])])] += milliseconds
    slowest = sorted(medians, key=medians.__getitem__, reverse=True)[:SLOWEST]
    return {
        "batch": batch,
        "image_size": [height, width],
        "parts": dict(sorted(parts.items(), key=lambda part: -part[1])),
        "slowest": [{"layer": name, "type": kind, "ms": medians[name, kind]} for name, kind in slowest],
    }


def table(results: dict[str, Any]) -> str:
    """Markdown: parts, then layers."""
    total = sum(results["parts"].values())
    rows = [(part, milliseconds) for part, milliseconds in results["parts"].items()]
    rows += [(f"`{row['layer']}` ({row['type']})", row["ms"]) for row in results["slowest"]]
    cells = [(name, f"{ms:.2f}", f"{100 * ms / total:.1f}") for name, ms in rows]
    return markdown(["", "ms", "share, %"], cells)


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="exported .xml file")
    parser.add_argument("--batch", type=int, default=1, help="images of an inference")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args(command)
    results = run(arguments.model, arguments.batch)
    print(table(results))
    if arguments.json:
        write_json(results, arguments.json)


if __name__ == "__main__":
    main()

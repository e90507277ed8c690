# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO files of models whose scores anyone can compute: no training, no export, no PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops
from PIL import Image

CLASSES = ["bolt", "nut"]
NOVELTY_LIMIT = 1.0
THRESHOLD = 0.5


def brightness_model(path: Path, shape: tuple[int, ...] = (-1, 3, -1, -1), **description: Any) -> Path:
    """A model that takes brightness for an anomaly.

    The score of an image is its mean, its map the mean over the channels, and both are anomalous above 0.5. The class
    is ``nut`` if the mean of red is above 0.5. The novelty is twice the mean of blue.

    Args:
        path: The .xml file.
        shape: Shape of the images that it takes.
        **description: What it says of itself, beyond or in place of what Hgad's files say.

    Returns:
        The file.
    """
    image = ops.parameter(shape, np.float32, name="input")
    score = ops.reduce_mean(image, [1, 2, 3], keep_dims=False)
    anomaly_map = ops.reduce_mean(image, [1], keep_dims=True)
    of_channel = ops.reduce_mean(image, [2, 3], keep_dims=False)
    red, blue = (ops.gather(of_channel, ops.constant([index]), ops.constant(1)) for index in (0, 2))
    novelty = ops.squeeze(ops.multiply(blue, ops.constant(np.float32(2))), ops.constant([1]))
    named = {
        "pred_score": score,
        "pred_label": ops.greater(score, ops.constant(np.float32(THRESHOLD))),
        "anomaly_map": anomaly_map,
        "pred_mask": ops.greater(anomaly_map, ops.constant(np.float32(THRESHOLD))),
        "inferred_class": ops.convert(ops.greater(red, ops.constant(np.float32(0.5))), "i64"),
        "novelty": novelty,
    }
    for name, node in named.items():
        node.output(0).tensor.set_names({name})
    # As in Hgad's files, class and novelty are no outputs; a second result keeps them in the graph.
    outputs = [named[name] for name in ("pred_score", "pred_label", "anomaly_map", "pred_mask")]
    kept = [ops.result(node) for node in outputs]
    image.output(0).tensor.set_names({"input"})
    hidden = ops.multiply(ops.add(ops.convert(named["inferred_class"], "f32"), novelty), ops.constant(np.float32(0)))
    kept[0] = ops.result(_named(ops.add(score, ops.reduce_sum(hidden, [0, 1], keep_dims=False)), "pred_score", score))
    graph = openvino.Model(kept, [image])
    entries = {
        "model": "anomalib_hgad.Hgad",
        "class_names": CLASSES,
        "class_tensor": "inferred_class",
        "novelty_tensor": "novelty",
        "novelty_limit": NOVELTY_LIMIT,
        "image_threshold": THRESHOLD,
    }
    for name, value in (entries | description).items():
        graph.set_rt_info(json.dumps(value), ["model_info", name])
    openvino.save_model(graph, path, compress_to_fp16=False)
    return path


def plain_model(path: Path) -> Path:
    """The same without classes, novelty and description, as anomalib exports its own models."""
    image = ops.parameter((-1, 3, -1, -1), np.float32, name="input")
    score = ops.reduce_mean(image, [1, 2, 3], keep_dims=False)
    label = ops.greater(score, ops.constant(np.float32(THRESHOLD)))
    for node, name in ((score, "pred_score"), (label, "pred_label")):
        node.output(0).tensor.set_names({name})
    openvino.save_model(openvino.Model([ops.result(score), ops.result(label)], [image]), path)
    return path


def flat_image(path: Path, red: int, green: int, blue: int, size: tuple[int, int] = (12, 8)) -> Path:
    """An image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, green, blue)).save(path)
    return path


def _named(node: Any, name: str, before: Any) -> Any:
    before.output(0).tensor.set_names(set())
    node.output(0).tensor.set_names({name})
    return node

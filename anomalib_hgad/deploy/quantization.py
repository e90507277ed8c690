# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""INT8 forms of an exported graph, made with NNCF.

Weights are most of a file. Those of backbone and flows are stored as 8-bit integers, or in half precision where a
family of flows needs it. Only the later convolutions and matrix products of the backbone compute in 8-bit integers:
rounding in the first ones spreads to all later ones. Flows, mixture and smoothing measure small differences of the
features: in 8-bit integers they could hardly distinguish images.

The rounding of the activations raises the scores and the novelty of all images of a class by about the same amount,
which differs between classes. This shift is measured on the training images and subtracted. Otherwise one threshold
would no longer fit all classes, and images of known products would be called unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import nncf
import numpy as np
import torch
from anomalib.deploy import CompressionType
from anomalib.metrics import F1Score
from openvino import CompiledModel, Model, Node, Output, opset13
from torchvision.transforms.v2.functional import resize
from torchvision.tv_tensors import Mask

from anomalib_hgad.deploy.calibration_images import calibration_images, resized
from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR, PIXELS_TENSOR
from anomalib_hgad.deploy.float32 import keep_in_float32
from anomalib_hgad.deploy.graph import IN_FLOAT32, core
from anomalib_hgad.deploy.module_names import modules_of
from anomalib_hgad.deploy.nodes import sources_of

if TYPE_CHECKING:
    from anomalib_hgad.data.batch import ClassImageBatch

logger = logging.getLogger(__name__)

QUANTISED = {"Convolution", "GroupConvolution", "MatMul"}
"""Operations whose weights, and in a calibrated form also inputs, are quantised."""

COMPUTED_IN_BYTES = ("model.encoder",)
"""Modules that a calibrated form computes in 8-bit integers."""

FLOAT_DEPTH = 0.6
"""Share of the depth of these modules, from the image on, that computes in floating point, because rounding errors
there affect everything that follows. Depth is counted in products with weights."""

LARGE_CONSTANT = 1024
"""Minimum number of elements for storing an added constant, such as position encodings, as 8-bit integers."""


@contextmanager
def _warnings_alone() -> Iterator[None]:
    """Keep NNCF from naming each of the hundreds of operations that stay in floating point by design."""
    of_nncf = logging.getLogger("nncf")
    level = of_nncf.level
    of_nncf.setLevel(logging.WARNING)
    try:
        yield
    finally:
        of_nncf.setLevel(level)


@_warnings_alone()
def compress(
    graph: Model,
    modules: Sequence[str],
    compression_type: CompressionType,
    datamodule: Any,  # noqa: ANN401 - anomalib has no types
    metric: Any,  # noqa: ANN401
    max_drop: float,
    class_names: Sequence[str],
) -> Model:
    """Quantise a graph to INT8.

    Args:
        graph: Graph in floating point, whose operations are named by
            :func:`~anomalib_hgad.deploy.module_names.name_modules`.
        modules: Modules whose weights are stored as 8-bit integers.
        compression_type: ``INT8`` for the weights only; ``INT8_PTQ`` for a backbone that computes in part in 8-bit
            integers, with ranges from training images; ``INT8_ACQ`` for as much of that as the metric on the
            validation images allows.
        datamodule: Data for the calibrated forms, or ``None``.
        metric: Metric for ``INT8_ACQ``, or ``None`` for the F1 score of the image labels.
        max_drop: Maximum drop of the metric.
        class_names: Names of the inferred classes; empty for a graph that infers none.

    Returns:
        The quantised graph.

    Raises:
        ValueError: If there are no validation images for ``INT8_ACQ``.
    """
    if compression_type == CompressionType.INT8:
        scope = _all_but(_products(graph, modules), graph)
        return _with_small_biases(nncf.compress_weights(graph, ignored_scope=scope))
    deep = _deep(graph, _products(graph, COMPUTED_IN_BYTES))
    scope = _all_but(deep, graph)
    before = graph.clone()
    datamodule.setup("fit")
    size = _input_size(graph)
    images = calibration_images(datamodule, size)
    subset = nncf.Dataset(images)
    if compression_type == CompressionType.INT8_PTQ:
        quantised = nncf.quantize(graph, subset, subset_size=len(images), ignored_scope=scope)
    else:
        metric = metric or F1Score(fields=["pred_label", "gt_label"])
        validation = datamodule.val_dataloader() if hasattr(datamodule, "val_data") else []
        if not len(validation):
            msg = "INT8_ACQ measures the metric on validation images, but the data have none. Give data with "
            msg += "validation images, or use INT8_PTQ."
            raise ValueError(msg)
        measured: list[float] = []

        def measure(model: CompiledModel, batches: Iterable[ClassImageBatch]) -> float:
            measured.append(_measure(model, batches, metric, size))
            return measured[-1]

        quantised = nncf.quantize_with_accuracy_control(
            graph,
            subset,
            nncf.Dataset(validation),
            measure,
            max_drop=max_drop,
            subset_size=len(images),
            ignored_scope=scope,
        )
        if not any(value > 0 for value in measured):
            logger.warning(
                "The metric is never above 0 on the validation images, so that INT8_ACQ cannot measure its drop: the "
                "file is that of INT8_PTQ. Give data with normal and anomalous validation images."
            )
    computed = {node.get_friendly_name() for node in deep}
    stored = [node for node in _products(quantised, modules) if node.get_friendly_name() not in computed]
    quantised = _with_small_biases(nncf.compress_weights(quantised, ignored_scope=_all_but(stored, quantised)))
    return _recentred(quantised, before, images, class_names) if NOVELTY_TENSOR in _by_name(quantised) else quantised


def in_half(graph: Model, modules: Sequence[str]) -> Model:
    """Store the weights of some modules in half precision; products with them stay in float32.

    Weights with values that half precision does not have stay in float32: there they would be infinite.

    Args:
        graph: Graph in floating point, named as for :func:`compress`; changed in place.
        modules: The modules.

    Returns:
        The graph.
    """
    for weights in [weights for node in _products(graph, modules) for weights in _weights(node)]:
        if np.abs(weights.data).max() > np.finfo(np.float16).max:
            continue
        half = opset13.convert(opset13.constant(weights.data.astype(np.float16)), "f32")
        for entry in weights.output(0).get_target_inputs():
            entry.replace_source_output(half.output(0))
    return graph


def _products(graph: Model, modules: Sequence[str]) -> list[Node]:
    """Find the products with weights within the given modules."""
    starts = tuple(f"{module}." for module in modules)
    of_nodes = modules_of(graph)
    return [
        node
        for node in graph.get_ordered_ops()
        if node.get_type_name() in QUANTISED
        and f"{of_nodes[node.get_friendly_name()]}.".startswith(starts)
        and _weights(node)
    ]


def _weights(node: Node) -> list[Node]:
    entering = [source.get_node() for source in sources_of(node)]
    return [source for source in entering if source.get_type_name() == "Constant"]


def _deep(graph: Model, products: Sequence[Node]) -> list[Node]:
    """Leave out the products in the first :data:`FLOAT_DEPTH` of the depth from the image."""
    counted = {node.get_friendly_name() for node in products}
    depths: dict[str, int] = {}
    for node in graph.get_ordered_ops():
        name = node.get_friendly_name()
        before = (depths[source.get_node().get_friendly_name()] for source in sources_of(node))
        depths[name] = max(before, default=0) + (name in counted)
    deepest = max((depths[name] for name in counted), default=0)
    return [node for node in products if depths[node.get_friendly_name()] > FLOAT_DEPTH * deepest]


def _all_but(nodes: Sequence[Node], graph: Model) -> nncf.IgnoredScope:
    names = {node.get_friendly_name() for node in nodes}
    others = [
        node for node in graph.get_ordered_ops() if node.get_type_name() not in {"Constant", "Parameter", "Result"}
    ]
    ignored = [node.get_friendly_name() for node in others if node.get_friendly_name() not in names]
    return nncf.IgnoredScope(names=ignored, validate=False)


def _input_size(graph: Model) -> tuple[int, int] | None:
    """Height and width of the images of a graph, if it accepts one size only."""
    shape = graph.input(0).get_partial_shape()
    if shape[2].is_dynamic or shape[3].is_dynamic:
        return None
    return shape[2].get_length(), shape[3].get_length()


def _measure(
    model: CompiledModel,
    batches: Iterable[ClassImageBatch],
    metric: Any,  # noqa: ANN401
    size: tuple[int, int] | None,
) -> float:
    metric.reset()
    for batch in batches:
        outputs = model(resized(batch.image, size))
        names = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
        batch.update(**{name: torch.from_numpy(outputs[name].copy()) for name in names})
        if batch.gt_mask is not None:  # as in a test, where the pre-processor resizes it
            batch.update(gt_mask=resize(Mask(batch.gt_mask), list(batch.pred_mask.shape[-2:])))
        metric.update(batch)
    return float(metric.compute())


def _with_small_biases(graph: Model) -> Model:
    """Store large added constants as 8-bit integers, with a range for each of their channels."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_output_element_type(0).get_type_name() != "f32":
            continue
        users = node.output(0).get_target_inputs()
        if {entry.get_node().get_type_name() for entry in users} != {"Add"} or node.data.size < LARGE_CONSTANT:
            continue
        channels = tuple(range(node.data.ndim - 1))
        low, high = node.data.min(axis=channels, keepdims=True), node.data.max(axis=channels, keepdims=True)
        step = np.maximum(high - low, np.finfo(np.float32).tiny) / 255
        levels = opset13.constant(np.round((node.data - low) / step).astype(np.uint8))
        values = opset13.convert(levels, "f32")
        restored = opset13.add(opset13.multiply(values, opset13.constant(step)), opset13.constant(low))
        for entry in users:
            entry.replace_source_output(restored.output(0))
    return graph


def _recentred(quantised: Model, before: Model, images: Iterable[np.ndarray], class_names: Sequence[str]) -> Model:
    """Subtract the mean shift of score and novelty by quantisation, for the images of each inferred class."""
    differences, classes = _shifts(quantised, before, images)
    total = len(class_names) if CLASS_TENSOR in _by_name(quantised) else 1
    counts = np.bincount(classes, minlength=total)
    if missing := [name for name, count in zip(class_names, counts, strict=False) if not count]:
        logger.warning(
            "None of the images for the calibration shows %s, so that the shift of its scores by INT8 is not "
            "corrected. Give data with training images of all classes.",
            ", ".join(missing),
        )
    tensors = _tensors(quantised)
    shapes = ((tensors.anomaly_map, [-1, 1, 1, 1]), (tensors.novelty, [-1]))
    for (tensor, shape), of_images in zip(shapes, differences.T, strict=True):
        users, names = tensor.get_target_inputs(), tensor.get_names()
        sums = np.bincount(classes, of_images, minlength=total)
        shift = opset13.constant((sums / counts.clip(min=1)).astype(np.float32))
        if tensors.inferred is not None:
            shift = opset13.gather(shift, tensors.inferred, opset13.constant(0))
        shift = opset13.reshape(shift, opset13.constant(shape), special_zero=False)
        corrected = opset13.subtract(tensor, shift).output(0)
        for entry in users:
            entry.replace_source_output(corrected)
        tensor.set_names(set())
        corrected.set_names(names)
    return quantised


def _shifts(quantised: Model, before: Model, images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Measure what quantisation adds to the unscaled score and the novelty of each image; images are read once.

    Returns:
        The differences, shape (number of images, 2), and the classes inferred without quantisation, shape (number of
        images,).
    """
    names = [name for name in (PIXELS_TENSOR, NOVELTY_TENSOR, CLASS_TENSOR) if name in _by_name(before)]
    old_model, new_model = (_compiled(graph, names) for graph in (before, quantised))
    differences, classes = [], []
    for image in images:
        old, new = old_model(image), new_model(image)
        pairs = ((float(new[name].mean()), float(old[name].mean())) for name in (PIXELS_TENSOR, NOVELTY_TENSOR))
        differences.append([after - earlier for after, earlier in pairs])
        classes.append(int(old[CLASS_TENSOR].item()) if CLASS_TENSOR in names else 0)
    return np.array(differences), np.array(classes)


def _compiled(graph: Model, names: Sequence[str]) -> CompiledModel:
    """Compile a graph in float32, with further tensors among its outputs."""
    graph = graph.clone()
    graph.add_outputs(list(names))
    keep_in_float32(graph)
    return core().compile_model(graph, "CPU", IN_FLOAT32)


class _Tensors(NamedTuple):
    """Tensors of a graph: inferred class, if there are several; anomaly map; its largest pixels; novelty."""

    inferred: Output | None
    anomaly_map: Output
    largest: Output
    novelty: Output


def _by_name(graph: Model) -> dict[str, Output]:
    return {
        name: output for node in graph.get_ordered_ops() for output in node.outputs() for name in output.get_names()
    }


def _tensors(graph: Model) -> _Tensors:
    outputs = _by_name(graph)
    largest = outputs[PIXELS_TENSOR]
    flattened = largest.get_node().input_value(0)
    anomaly_map = flattened.get_node().input_value(0)
    return _Tensors(outputs.get(CLASS_TENSOR), anomaly_map, largest, outputs[NOVELTY_TENSOR])

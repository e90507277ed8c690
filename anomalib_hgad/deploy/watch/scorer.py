# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""An exported model that several threads share, each with its own inference request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino

from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.deploy.arrays import as_input
from anomalib_hgad.deploy.description import (
    IMAGE_SIZE,
    THRESHOLDS,
    are_unknown,
    has_threshold,
    predicted_names,
    scored_names,
)
from anomalib_hgad.deploy.graph import IN_FLOAT32, compile_graph, infer, read_graph
from anomalib_hgad.deploy.weights import checksum, weights_of


@dataclass(frozen=True)
class Scored:
    """Prediction for an image; ``None`` for what the model does not predict.

    Attributes:
        values: Columns of the tables of predictions.
        verdict: ``"good"``, ``"bad"`` or ``"unknown"``.
        anomaly_map: Shape (height, width).
        pred_mask: Anomalous pixels, bool, shape (height, width).
    """

    values: dict[str, Any]
    verdict: str | None
    anomaly_map: np.ndarray | None
    pred_mask: np.ndarray | None


class Scorer:
    """A compiled model and its inference requests.

    Args:
        path: Exported .xml or .onnx file, of this package or of anomalib.
        device: OpenVINO device.
        in_flight: Number of images at a time; ``None`` for as many as keep the device busy.

    Attributes:
        identity: A checksum of the files, 16 digits.
        in_flight: Recommended number of images at a time.
        has_threshold: Whether the model has a threshold between good and bad images.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not an exported anomaly model, or cannot be read or compiled.
    """

    def __init__(self, path: Path, device: str = "CPU", in_flight: int | None = None) -> None:
        try:
            graph, self._description = read_graph(path)
            self.identity = identity(path)
            self._outputs = {name for output in graph.outputs for name in output.names}
            if "pred_score" not in self._outputs:
                msg = f"{path} has no output pred_score: expected an anomaly model of `anomalib export`."
                raise ValueError(msg)
            batch = graph.input(0).partial_shape[0]
            if batch.is_static and batch.get_length() != 1:
                msg = f"{path} accepts only batches of {batch.get_length()} images, but a watch scores one at a time. "
                msg += "Export the model without a size of the batch."
                raise ValueError(msg)
            # Parallel streams give more images per second than all cores for one image.
            settings: dict[str, Any] = IN_FLOAT32 | {"PERFORMANCE_HINT": "THROUGHPUT"}
            if in_flight is not None:
                settings["PERFORMANCE_HINT_NUM_REQUESTS"] = in_flight
            self.model = compile_graph(graph, device, settings, self._description.get("image_size", IMAGE_SIZE))
        except RuntimeError as error:
            msg = f"{path} cannot be used by OpenVINO on the device {device}: {str(error).strip().splitlines()[-1]}"
            raise ValueError(msg) from error
        requests = self.model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        # While some images are scored, others are read.
        self.in_flight = 2 * requests if in_flight is None else in_flight
        self._requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(min(requests, self.in_flight)):
            self._requests.put(self.model.create_infer_request())
        self.has_threshold, self._has_mask = (
            output in self._outputs and has_threshold(self._description, output) for output in THRESHOLDS
        )

    def score(self, pixels: np.ndarray, with_map: bool) -> Scored:
        """Score an image; threads wait for a free request.

        Args:
            pixels: RGB, uint8, shape (height, width, 3).
            with_map: Whether to return map and mask.

        Returns:
            The prediction.

        Raises:
            ValueError: If the model accepts images of another size only, or if the score is not a finite number.
        """
        image = as_input(pixels)
        if not self.model.input(0).partial_shape.compatible(openvino.PartialShape(list(image.shape))):
            shape = self.model.input(0).partial_shape
            msg = f"the model accepts only images of shape {shape}, got {list(image.shape)}; export it without a size"
            raise ValueError(msg)
        with self._request() as request:
            found = infer(request, image)
            values = {name: found[name].item() for name in ("pred_score", "pred_label") if name in self._outputs}
            values |= self._class_and_novelty(found)
            anomaly_map, mask = (
                found[name].reshape(found[name].shape[-2:]).copy() if with_map and is_there else None
                for name, is_there in (("anomaly_map", "anomaly_map" in self._outputs), ("pred_mask", self._has_mask))
            )
        if not math.isfinite(values["pred_score"]):
            msg = f"the model returns the score {values['pred_score']}"
            raise ValueError(msg)
        label = values["pred_label"] = bool(values["pred_label"]) if self.has_threshold else None
        is_unknown = "novelty" in values and are_unknown(self._description, np.array(values["novelty"]))
        verdict = UNKNOWN if is_unknown else None if label is None else "bad" if label else "good"
        return Scored(values, verdict, anomaly_map, mask)

    def _class_and_novelty(self, found: Any) -> dict[str, Any]:  # noqa: ANN401 - OpenVINO's own dictionary
        if "class_tensor" not in self._description:
            return {}
        tensor, novelty = self._description["class_tensor"], found[self._description["novelty_tensor"]]
        class_index = None if tensor is None else found[tensor][:, 0]
        names = {
            "pred_class_name": predicted_names(self._description, novelty, class_index),
            "scored_class_name": scored_names(self._description, class_index, len(novelty)),
        }
        return {"novelty": novelty.item()} | {column: of_batch and of_batch[0] for column, of_batch in names.items()}

    @contextmanager
    def _request(self) -> Iterator[openvino.InferRequest]:
        request = self._requests.get()
        try:
            yield request
        finally:
            self._requests.put(request)


def identity(path: Path) -> str:
    """Compute a checksum of an exported model.

    Args:
        path: The file.

    Returns:
        16 digits.
    """
    weights = weights_of(path)
    return checksum(path, *([] if weights is None else [weights]))

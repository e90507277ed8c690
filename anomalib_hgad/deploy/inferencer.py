# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's OpenVINOInferencer, which says the inferred class too, or that the product is unknown.

anomalib's own takes the same files and gives the same scores, masks and labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import torch
from anomalib.deploy import OpenVINOInferencer
from PIL import Image

from anomalib_hgad.data.batch import UNKNOWN, NumpyClassImageBatch
from anomalib_hgad.data.images import check_depth, check_finite, naming_errors
from anomalib_hgad.deploy.export import IN_FLOAT32


class ClassOpenVINOInferencer(OpenVINOInferencer):
    """Inferencer for exported files of :class:`~anomalib_hgad.Hgad`.

    It computes in float32 unless told otherwise; OpenVINO's own choice is bfloat16 on processors that can, in which
    scores differ.

    Args:
        path: Exported .xml or .onnx file.
        device: Device of OpenVINO.
            Defaults to ``"CPU"``.
        config: Settings of OpenVINO.
            Defaults to ``None``.

    Attributes:
        description: What the file says of the model, see :meth:`anomalib_hgad.Hgad.description`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no exported model of Hgad, or one without a novelty.
    """

    description: dict[str, Any]

    def __init__(self, path: str | Path, device: str = "CPU", config: dict[str, Any] | None = None) -> None:
        super().__init__(path, device, IN_FLOAT32 | (config or {}))

    def load_model(self, path: str | Path) -> tuple[Any, Any, openvino.CompiledModel]:
        """Read and compile a file, with class and novelty among the outputs.

        Args:
            path: Exported .xml or .onnx file.

        Returns:
            Input, first output, and compiled model.
        """
        path = Path(path)
        if path.suffix not in {".xml", ".onnx"}:
            msg = f"Expected an exported .xml or .onnx file, got {path}."
            raise ValueError(msg)
        if not path.is_file():
            msg = f"No file at {path}. Export a model with `anomalib export --model Hgad --export_type openvino`."
            raise FileNotFoundError(msg)
        graph = openvino.Core().read_model(path)
        self.description = _description(path, graph)
        tensors = [self.description["novelty_tensor"], self.description["class_tensor"]]
        graph.add_outputs([name for name in tensors if name is not None])
        model = openvino.compile_model(graph, self.device, self.config)
        return model.input(0), model.output(0), model

    def predict(self, image: str | Path | np.ndarray | Image.Image) -> NumpyClassImageBatch:
        """Predict an image.

        Args:
            image: Path of an image, a PIL image, or an array of shape (height, width, 3) or (B, 3, height, width), from
                0 to 255 or from 0 to 1.

        Returns:
            A batch of one, or of B, with ``novelty``, ``pred_class_index`` and ``pred_class_name``, which is
            ``"unknown"`` above the limit of the novelty: ``pred_label`` says nothing of such an image. A single
            Gaussian of several classes infers none.

        Raises:
            OSError: If a file is no image, or has grey values of more than 8 bits. The message names it.
            ValueError: If an array has numbers that are not finite.
        """
        if isinstance(image, str | Path):
            with naming_errors(image), Image.open(image) as opened:
                check_depth(opened)
                image = opened.convert("RGB")
        if isinstance(image, Image.Image):
            image = np.array(image.convert("RGB")) / 255.0
        images = self.pre_process(image)
        check_finite(torch.from_numpy(images), None)
        outputs = self.post_process(self.model({self.input_blob.any_name: images}))
        novelty = outputs.pop(self.description["novelty_tensor"])
        inferred = outputs.pop(self.description["class_tensor"], np.zeros((len(images), 1), dtype=np.int64))
        batch = NumpyClassImageBatch(image=images, **outputs, novelty=novelty)
        class_names = self.description["class_names"]
        if self.description["class_tensor"] is not None or len(class_names) == 1:
            batch.pred_class_index = inferred[:, 0]
            batch.pred_class_name = [
                UNKNOWN if is_novel else class_names[index]
                for index, is_novel in zip(inferred[:, 0], novelty > self.description["novelty_limit"], strict=True)
            ]
        return batch


def _description(path: Path, graph: openvino.Model) -> dict[str, Any]:
    if path.suffix == ".onnx":
        entries = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    elif graph.has_rt_info(["model_info", "class_tensor"]):
        entries = dict(graph.get_rt_info(["model_info"]).value)
    else:
        entries = {}
    if "class_tensor" not in entries:
        msg = f"{path} does not say that it is an exported model of anomalib_hgad.Hgad. For others, take anomalib's "
        msg += "OpenVINOInferencer."
        raise ValueError(msg)
    if "novelty_tensor" not in entries:
        msg = f"{path} was exported by an older version, and cannot tell unknown products: export the model again."
        raise ValueError(msg)
    return {name: json.loads(value) for name, value in entries.items()}

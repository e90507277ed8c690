# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's OpenVINOInferencer, which says the inferred class too, or that the product is unknown.

anomalib's own takes the same files and gives the same scores, masks and labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from threading import Lock
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

CHANNELS = {1, 3, 4}
"""Numbers of channels that an array may have."""


class ClassOpenVINOInferencer(OpenVINOInferencer):
    """Inferencer for exported files of :class:`~anomalib_hgad.Hgad`.

    It computes in float32 unless told otherwise. Several threads may share one: they take turns.

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
        self._turn = Lock()

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

    def predict(self, image: str | Path | np.ndarray | Image.Image | torch.Tensor) -> NumpyClassImageBatch:
        """Predict an image.

        Args:
            image: Path of an image; a PIL image; or an array or tensor, which stays as it is: whole numbers from 0 to
                255 (uint8), floating-point ones from 0 to 1, or truth values, of shape (height, width), (height, width,
                channels), (channels, height, width) or (B, channels, height, width) or (B, height, width, channels)
                with 1 channel for grey, 3 for RGB or 4 for RGB and a transparency that is left out.

        Returns:
            A batch of one, or of B, with ``novelty``, ``pred_class_index`` and ``pred_class_name``, which is
            ``"unknown"`` above the limit of the novelty: ``pred_label`` says nothing of such an image. A single
            Gaussian of several classes infers none.

        Raises:
            OSError: If a file is no image, or a file or PIL image has grey values of more than 8 bits. The message
                names the file.
            TypeError: If it is nothing of these.
            ValueError: If an array is of other numbers or of another shape, or has numbers that are not finite.
        """
        images = self.pre_process(_array(image))
        check_finite(torch.from_numpy(images), None)
        with self._turn:
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

    @staticmethod
    def pre_process(image: np.ndarray) -> np.ndarray:
        """Images as the model takes them.

        Args:
            image: Array as in :meth:`predict`.

        Returns:
            A copy, from 0 to 1, float32, shape (B, 3, height, width).

        Raises:
            ValueError: If it is of other numbers or of another shape.
        """
        is_whole = image.dtype == np.uint8
        is_known = is_whole or image.dtype == bool or np.issubdtype(image.dtype, np.floating)
        if not (is_known and image.size and image.ndim in {2, 3, 4}):
            raise _wrong(image)
        images = image[None] if image.ndim == 3 else image[None, None] if image.ndim == 2 else image
        is_first = images.shape[1] in CHANNELS and (image.ndim != 3 or images.shape[-1] not in CHANNELS)
        if images.shape[-1] in CHANNELS and not is_first:
            images = images.transpose(0, 3, 1, 2)
        if images.shape[1] not in CHANNELS:
            raise _wrong(image)
        images = np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images[:, :3]
        made = np.array(images, dtype=np.float32, order="C")
        if is_whole:
            return made / np.float32(255)
        low, high = made.min(), made.max()
        if np.isfinite([low, high]).all() and (low < 0 or high > 1):
            raise _wrong(image, f" from {low:.4g} to {high:.4g}")
        return made


def _wrong(image: np.ndarray, values: str = "") -> ValueError:
    return ValueError(
        "Expected uint8 from 0 to 255, truth values, or floating-point numbers from 0 to 1, of shape (height, width), "
        "or with 1, 3 or 4 channels before or behind, or a batch of such, got "
        f"{image.dtype} of shape {image.shape}{values}. Convert it."
    )


def _array(image: str | Path | np.ndarray | Image.Image | torch.Tensor) -> np.ndarray:
    """Pixels of an image."""
    if isinstance(image, str | Path):
        with naming_errors(image), Image.open(image) as opened:
            check_depth(opened)
            return np.array(opened.convert("RGB"))
    if isinstance(image, Image.Image):
        try:
            check_depth(image)
        except OSError as error:
            msg = f"The image of mode {image.mode} and size {image.size} cannot be read: {error}."
            raise OSError(msg) from error
        return np.array(image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        tensor = image.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(image, np.ndarray):
        return image
    msg = f"Expected the path of an image, a PIL image, an array or a tensor, got {type(image).__name__}."
    raise TypeError(msg)


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

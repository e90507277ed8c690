# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's OpenVINOInferencer, which says the inferred class too, or that the product is unknown.

anomalib's own takes the same files and gives the same scores, masks and labels.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino
import torch
from anomalib.deploy import OpenVINOInferencer
from PIL import Image

from anomalib_hgad.data.batch import NumpyClassImageBatch
from anomalib_hgad.data.images import check_finite
from anomalib_hgad.data.reading import check_depth, read_pixels
from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.deploy.arrays import as_input
from anomalib_hgad.deploy.graph import IN_FLOAT32, compile_graph, read_graph


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
        graph, self.description = read_graph(Path(path))
        if "class_tensor" not in self.description:
            msg = f"{path} does not say that it is an exported model of anomalib_hgad.Hgad. For others, take "
            msg += "anomalib's OpenVINOInferencer."
            raise ValueError(msg)
        model = compile_graph(graph, self.device, self.config, self.description["image_size"])
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
        return as_input(image)


def _array(image: str | Path | np.ndarray | Image.Image | torch.Tensor) -> np.ndarray:
    """Pixels of an image."""
    if isinstance(image, str | Path):
        return read_pixels(image)
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

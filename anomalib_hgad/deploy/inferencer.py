# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Inferencers for OpenVINO and onnxruntime that also return the inferred class, or that the product is unknown.

anomalib's own inferencer accepts the same files and returns the same scores, masks and labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnx
import openvino
import torch
from anomalib.data import InferenceBatch
from anomalib.deploy import OpenVINOInferencer
from PIL import Image

from anomalib_hgad.data.batch import NumpyClassImageBatch
from anomalib_hgad.data.images import check_finite
from anomalib_hgad.data.reading import check_depth, read_pixels
from anomalib_hgad.deploy.arrays import as_input
from anomalib_hgad.deploy.description import (
    IMAGE_SIZE,
    THRESHOLDS,
    check_description,
    has_threshold,
    load_onnx,
    of_onnx,
    predicted_names,
)
from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR
from anomalib_hgad.deploy.graph import IN_FLOAT32, compile_graph, read_graph
from anomalib_hgad.deploy.weights import check_weights

ELEMENT_TYPES = {CLASS_TENSOR: onnx.TensorProto.INT64, NOVELTY_TENSOR: onnx.TensorProto.FLOAT}
"""Types of the tensors that are not outputs of an exported graph."""


class ClassInferencer(ABC):
    """Inferencer for exported files of :class:`~anomalib_hgad.Hgad`, independent of the runtime.

    Attributes:
        description: Metadata of the model, see :meth:`anomalib_hgad.Hgad.description`.
    """

    description: dict[str, Any]

    def predict(self, image: str | Path | np.ndarray | Image.Image | torch.Tensor) -> NumpyClassImageBatch:
        """Predict an image.

        Args:
            image: Path of an image; a PIL image; or an array or tensor, which is not changed: integers from 0 to 255
                (uint8), floating-point numbers from 0 to 1, or booleans, of shape (height, width), (height, width,
                channels), (channels, height, width), (B, channels, height, width) or (B, height, width, channels),
                with 1 channel for grey, 3 for RGB or 4 for RGB and an alpha channel, which is ignored.

        Returns:
            A batch of one, or of B, with ``novelty``, ``pred_class_index`` and ``pred_class_name``, which is
            ``"unknown"`` above the limit of the novelty: ``pred_label`` is meaningless for such an image. A single
            Gaussian for several classes infers no class. ``pred_label`` and ``pred_mask`` are ``None`` for a model
            without a threshold for them, as after a training without a validation.

        Raises:
            OSError: If a file is not an image, or a file or PIL image has grey values of more than 8 bits. The message
                names the file.
            TypeError: If ``image`` has another type.
            ValueError: If an array has another dtype or shape, or NaN or infinite values.
        """
        images = self.pre_process(_array(image))
        check_finite(torch.from_numpy(images), None)
        outputs = self.compute(images)
        novelty = outputs.pop(self.description["novelty_tensor"])
        inferred = outputs.pop(self.description["class_tensor"], None)
        class_index = None if inferred is None else inferred[:, 0]
        for output in THRESHOLDS:
            if not has_threshold(self.description, output):
                outputs.pop(output, None)
        batch = NumpyClassImageBatch(image=images, **outputs, novelty=novelty)
        if (names := predicted_names(self.description, novelty, class_index)) is not None:
            batch.pred_class_index = np.zeros(len(images), dtype=np.int64) if class_index is None else class_index
            batch.pred_class_name = names
        return batch

    @abstractmethod
    def compute(self, images: np.ndarray) -> dict[str, Any]:
        """Compute the outputs of the graph by name, including class and novelty.

        Args:
            images: From 0 to 1, float32, shape (B, 3, height, width).
        """

    @staticmethod
    def pre_process(image: np.ndarray) -> np.ndarray:
        """Convert an array to the input of the model.

        Args:
            image: Array as in :meth:`predict`.

        Returns:
            A copy, from 0 to 1, float32, shape (B, 3, height, width).

        Raises:
            ValueError: If it has another dtype, range or shape.
        """
        return as_input(image)


class ClassOpenVINOInferencer(ClassInferencer, OpenVINOInferencer):
    """OpenVINO inferencer for exported files of :class:`~anomalib_hgad.Hgad`.

    It computes in float32 unless ``config`` says otherwise. Threads may share an instance; they take turns.

    Args:
        path: Exported .xml or .onnx file.
        device: OpenVINO device.
            Defaults to ``"CPU"``.
        config: OpenVINO settings.
            Defaults to ``None``.

    Attributes:
        description: Metadata of the model, see :meth:`anomalib_hgad.Hgad.description`.

    Raises:
        FileNotFoundError: If the file, or that of its weights, does not exist.
        ValueError: If the file cannot be read, is not an exported model of Hgad, has no novelty or wrong metadata, or
            has weights of another export.
    """

    def __init__(self, path: str | Path, device: str = "CPU", config: dict[str, Any] | None = None) -> None:
        super().__init__(path, device, IN_FLOAT32 | (config or {}))
        self._turn = Lock()

    def load_model(self, path: str | Path) -> tuple[Any, Any, openvino.CompiledModel]:
        """Read and compile a file, with class and novelty as additional outputs.

        Args:
            path: Exported .xml or .onnx file.

        Returns:
            Input, first output, and compiled model.
        """
        graph, self.description = read_graph(Path(path))
        if "class_tensor" not in self.description:
            msg = f"{path} is not an exported model of anomalib_hgad.Hgad by its metadata. For other models, use "
            msg += "anomalib's OpenVINOInferencer."
            raise ValueError(msg)
        model = compile_graph(graph, self.device, self.config, self.description.get("image_size", IMAGE_SIZE))
        return model.input(0), model.output(0), model

    def compute(self, images: np.ndarray) -> dict[str, Any]:
        """Compute the outputs, as in :class:`ClassInferencer`."""
        with self._turn:
            results = self.model({self.input_blob.any_name: images})
        # A graph that was changed since its export may have more names for a tensor than its own.
        known = {*InferenceBatch._fields, *_tensors(self.description)}
        return {name: value for output, value in results.items() for name in output.names if name in known}


class ClassONNXInferencer(ClassInferencer):
    """onnxruntime inferencer for exported .onnx files of :class:`~anomalib_hgad.Hgad`.

    Threads may share an instance.

    Args:
        path: Exported .onnx file.
        providers: Execution providers of onnxruntime, in order of preference: names such as
            ``"CUDAExecutionProvider"`` or ``"TensorrtExecutionProvider"``, or pairs of a name and its options. Parts of
            the graph that none of them supports run on the CPU.
            Defaults to the CPU only.

    Raises:
        FileNotFoundError: If the file, or that of its weights, does not exist.
        ValueError: As in :class:`ClassOpenVINOInferencer`.
        RuntimeError: If a provider is not available, or cannot be used.
        ModuleNotFoundError: If onnxruntime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str | tuple[str, dict[str, Any]]] = ("CPUExecutionProvider",),
    ) -> None:
        onnxruntime = import_onnxruntime()
        path = _existing(path, ".onnx")
        self.description = of_onnx(path)
        tensors = _further_tensors(path, self.description)
        wanted = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        installed = onnxruntime.get_available_providers()
        if missing := [name for name in wanted if name not in installed]:
            msg = (
                f"The installed onnxruntime has no {' and no '.join(missing)}; it has {', '.join(installed)}. Install "
            )
            msg += "a build that has it, such as onnxruntime-gpu, or choose another provider."
            raise RuntimeError(msg)
        graph = load_onnx(path)
        graph.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, ELEMENT_TYPES[name], None) for name in tensors
        )
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        self.session = onnxruntime.InferenceSession(graph.SerializeToString(), options, list(providers))
        # A provider whose libraries are missing is skipped without an error.
        if unusable := [name for name in wanted if name not in self.session.get_providers()]:
            msg = f"onnxruntime cannot use {' and '.join(unusable)} here, and would compute with "
            msg += f"{', '.join(self.session.get_providers())} instead. Its log says why: usually a library of CUDA, "
            msg += "cuDNN or TensorRT is missing or has another version."
            raise RuntimeError(msg)

    def compute(self, images: np.ndarray) -> dict[str, Any]:
        """Compute the outputs, as in :class:`ClassInferencer`."""
        names = [output.name for output in self.session.get_outputs()]
        (entry,) = self.session.get_inputs()
        return dict(zip(names, self.session.run(names, {entry.name: images}), strict=True))


def import_onnxruntime() -> Any:  # noqa: ANN401 - an optional module
    """Import onnxruntime.

    Returns:
        The module.

    Raises:
        ModuleNotFoundError: If it is not installed. The message says what to install.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - anomalib exports without it
    except ModuleNotFoundError as error:
        msg = "An .onnx file needs onnxruntime, which is not installed: pip install onnxruntime, or "
        msg += "onnxruntime-gpu for CUDA and TensorRT."
        raise ModuleNotFoundError(msg, name="onnxruntime") from error
    return onnxruntime


def _existing(path: str | Path, *endings: str) -> Path:
    path = Path(path)
    if path.suffix not in endings:
        msg = f"Expected an exported {' or '.join(endings)} file, got {path}."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"No file at {path}. Export a model with `anomalib export --model Hgad --export_type "
        msg += f"{'onnx' if path.suffix == '.onnx' else 'openvino'}`."
        raise FileNotFoundError(msg)
    return path


def _further_tensors(path: Path, description: dict[str, Any]) -> list[str]:
    """Names of the tensors to add to the outputs."""
    if "class_tensor" not in description:
        msg = f"{path} is not an exported model of anomalib_hgad.Hgad by its metadata. For other models, use "
        msg += "anomalib's OpenVINOInferencer."
        raise ValueError(msg)
    check_description(path, description)
    check_weights(path, description)
    return _tensors(description)


def _tensors(description: dict[str, Any]) -> list[str]:
    return [name for name in (description["novelty_tensor"], description["class_tensor"]) if name is not None]


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

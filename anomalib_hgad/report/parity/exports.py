# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported files as functions of an image, each loaded as its runtime loads it by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from anomalib.deploy import TorchInferencer
from torchvision.transforms.v2.functional import resize

from anomalib_hgad.deploy.description import of_onnx, of_openvino, predicted_names
from anomalib_hgad.deploy.graph import core
from anomalib_hgad.deploy.inferencer import (
    ClassInferencer,
    ClassONNXInferencer,
    ClassOpenVINOInferencer,
    import_onnxruntime,
)
from anomalib_hgad.deploy.torch_export import load_program
from anomalib_hgad.report.parity.outputs import Outputs

Compute = Callable[[np.ndarray], tuple[dict[str, np.ndarray], list[str] | None]]
"""Outputs of a batch by their names, and the names of the inferred classes where the file tells them."""


@dataclass(frozen=True)
class Export:
    """An exported file, loaded.

    Attributes:
        path: The file.
        runtime: Runtime that computes it.
        form: Precision of its weights: FP32, FP16 or INT8.
        size: Height and width of the images, if it accepts only one size.
        description: Metadata of its model; empty for a file that this package has not written.
        compute: Computes a batch.
    """

    path: Path
    runtime: str
    form: str
    size: tuple[int, int] | None
    description: dict[str, Any]
    compute: Compute

    def predict(self, image: torch.Tensor) -> Outputs:
        """Predict an image.

        Args:
            image: Values from 0 to 1, shape (3, height, width). A file for images of one size gets it resized to that.

        Returns:
            Outputs of the model.

        Raises:
            ValueError: If the runtime fails. The message names the file.
        """
        if self.size is not None and tuple(image.shape[-2:]) != self.size:
            image = resize(image, list(self.size), antialias=True).clamp(0, 1)  # rounding goes beyond
        with _named(self.path, self.runtime):
            return Outputs.of(*self.compute(image.unsqueeze(0).numpy()))


def load_export(path: Path) -> Export:
    """Load an exported file.

    Args:
        path: An .xml, .onnx, .pt or .pt2 file.

    Returns:
        The export.

    Raises:
        ValueError: If the file has another suffix, or cannot be read.
        FileNotFoundError: If the file does not exist.
        ModuleNotFoundError: If its runtime is not installed.
    """
    if path.suffix not in LOADERS:
        msg = f"Expected exported files, {', '.join(LOADERS)}, got {path}. `anomalib export` writes them."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"No file at {path}. `anomalib export --export_type onnx` and the like write one."
        raise FileNotFoundError(msg)
    runtime, load = LOADERS[path.suffix]
    with _named(path, runtime):
        return load(path, runtime)


@contextmanager
def _named(path: Path, runtime: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:  # every runtime has errors of its own
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        msg = f"{path} cannot be run by {runtime}: {reason}"
        raise ValueError(msg) from error


def _openvino(path: Path, runtime: str) -> Export:
    graph = core().read_model(path)
    constants = [node for node in graph.get_ordered_ops() if node.get_type_name() == "Constant"]
    kinds = {constant.get_element_type().get_type_name() for constant in constants}
    shape, description = graph.input(0).get_partial_shape(), of_openvino(graph)
    # Outputs that are added may change in which precision the others are computed: the classes are another graph's.
    model = core().compile_model(graph, "AUTO")
    names = _class_names(ClassOpenVINOInferencer, path, description)
    return Export(
        path,
        runtime,
        _form(kinds),
        _fixed_size([size.get_length() if size.is_static else None for size in shape]),
        description,
        # A tensor may have several names.
        lambda images: (
            {name: value for output, value in model(images).items() for name in output.names},
            names(images),
        ),
    )


def _onnxruntime(path: Path, runtime: str) -> Export:
    onnxruntime = import_onnxruntime()
    graph = onnx.load(path, load_external_data=False).graph
    kinds = {onnx.TensorProto.DataType.Name(tensor.data_type).lower() for tensor in graph.initializer}
    description = of_onnx(path)
    session = onnxruntime.InferenceSession(path)
    outputs = [output.name for output in session.get_outputs()]
    (entry,) = session.get_inputs()
    names = _class_names(ClassONNXInferencer, path, description)
    return Export(
        path,
        runtime,
        _form(kinds),
        _fixed_size(entry.shape),
        description,
        lambda images: (dict(zip(outputs, session.run(outputs, {entry.name: images}), strict=True)), names(images)),
    )


def _class_names(
    inferencer: type[ClassInferencer], path: Path, description: dict[str, Any]
) -> Callable[[np.ndarray], list[str] | None]:
    """Names of the inferred classes of a batch, of files that tell them."""
    if not {"class_tensor", "novelty_tensor"} <= description.keys():
        return lambda _: None
    loaded = inferencer(path)  # type: ignore[call-arg]
    return lambda images: loaded.predict(images).pred_class_name


def _torch(path: Path, runtime: str) -> Export:
    model = TorchInferencer(path, device="cpu").model

    def compute(images: np.ndarray) -> tuple[dict[str, np.ndarray], None]:
        with torch.inference_mode():
            outputs = model(torch.from_numpy(images))._asdict()
        return {name: value.numpy() for name, value in outputs.items() if value is not None}, None

    kinds = {str(value.dtype).removeprefix("torch.") for value in model.state_dict().values()}
    return Export(path, runtime, _form(kinds), None, {}, compute)


def _torch_export(path: Path, runtime: str) -> Export:
    program, description = load_program(path)
    model = program.module()
    (entry,) = program.graph_signature.user_inputs
    (shape,) = (node.meta["val"].shape for node in program.graph.nodes if node.name == entry)

    def compute(images: np.ndarray) -> tuple[dict[str, np.ndarray], list[str] | None]:
        with torch.inference_mode():
            outputs = {name: value.numpy() for name, value in model(torch.from_numpy(images)).items()}
        if not {"class_tensor", "novelty_tensor"} <= description.keys():
            return outputs, None
        inferred = outputs.get(description["class_tensor"])
        novelty = outputs[description["novelty_tensor"]]
        return outputs, predicted_names(description, novelty, None if inferred is None else inferred[:, 0])

    kinds = {str(value.dtype).removeprefix("torch.") for value in program.state_dict.values()}
    return Export(path, runtime, _form(kinds), _fixed_size(shape), description, compute)


def _form(kinds: Iterable[str]) -> str:
    """Precision of weights of some types, as each runtime calls them."""
    kinds = set(kinds)
    if kinds & {"i8", "u8", "int8", "uint8", "i4", "u4"}:
        return "INT8"
    return "FP16" if kinds & {"f16", "float16"} else "FP32"


def _fixed_size(shape: Iterable[object]) -> tuple[int, int] | None:
    """Height and width of an input, shape (B, 3, height, width) with anything else than whole numbers for any size."""
    height, width = list(shape)[-2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


LOADERS: dict[str, tuple[str, Callable[[Path, str], Export]]] = {
    ".xml": ("OpenVINO", _openvino),
    ".onnx": ("onnxruntime", _onnxruntime),
    ".pt": ("PyTorch", _torch),
    ".pt2": ("torch.export", _torch_export),
}
"""Runtimes by file suffix."""

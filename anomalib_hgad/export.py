# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's export, of a model that is folded for inference and says what it is.

anomalib's inferencers refuse a graph with an output that they do not know, so the inferred class is no output. The
graph computes it all the same, and names it :data:`CLASS_TENSOR`: whoever wants it makes that tensor an output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType
from anomalib.models.components.base.export_mixin import ExportMixin
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor

from .folding import fold
from .torch_model import HgadModel
from .transforms import exportable, last_size

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model

OPSET = 18
"""What PyTorch's exporter writes by itself; it converts to an older one, and prints a traceback where it cannot."""

IN_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""Setting of OpenVINO without which it computes in bfloat16 on processors that can."""

CALIBRATED = (CompressionType.INT8_PTQ, CompressionType.INT8_ACQ)
"""Forms that need images."""

CLASS_TENSOR = "class_candidates"
"""Name of the tensor of each image's most probable classes, the inferred one first, int64, shape (B, J)."""


class FoldedExport(ExportMixin):
    """Replaces what anomalib exports by the same model with all constants computed, and adds its description."""

    class_names: list[str]
    model: HgadModel
    pre_processor: PreProcessor | None
    post_processor: PostProcessor | None

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export to a pickled PyTorch module.

        Args:
            export_root: Folder for the file.
            model_file_name: Its name without ending.

        Returns:
            The file.
        """
        with self._for_inference(self._fixed_size()):
            return Path(super().to_torch(export_root, model_file_name))

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Path:
        """Export to ONNX, with the description in the metadata of the file.

        Args:
            export_root: Folder for the file.
            model_file_name: Its name without ending.
            input_size: Height and width of the images. Defaults to ``None``, for images of any size.
            **kwargs: Arguments of :func:`torch.onnx.export`; the opset is 18 unless given.

        Returns:
            The file.

        Raises:
            ValueError: If images of any size are asked for and nothing resizes them to one.
        """
        import onnx  # noqa: PLC0415 - half a second, with openvino, that a training need not wait for

        size = self._fixed_size() or input_size
        if size is None:
            msg = "The pre-processor has no Resize, so that the graph can take images of one size only. Expected this "
            msg += "size as input_size=(height, width), got None."
            raise ValueError(msg)
        kwargs.setdefault("opset_version", OPSET)
        with self._for_inference(size):
            path = Path(super().to_onnx(export_root, model_file_name, input_size, **kwargs))
        graph = onnx.load(path, load_external_data=False)
        onnx.helper.set_model_props(graph, self.description())
        _name_candidates(graph)
        with _replaced(path) as unfinished:
            onnx.save(graph, unfinished)
        return path

    def to_openvino(self, export_root: Path | str, *args: Any, **kwargs: Any) -> Path:  # noqa: ANN401
        """Export to OpenVINO, with the description under ``model_info`` of the file's runtime information.

        Args:
            export_root: Folder for the files.
            *args: As in anomalib's export.
            **kwargs: As there.

        Returns:
            The .xml file.

        Raises:
            ValueError: If a calibrated form gets no data.
        """
        import openvino  # noqa: PLC0415 - as onnx above

        arguments = signature(super().to_openvino).bind(export_root, *args, **kwargs).arguments
        compression_type = arguments.get("compression_type")
        if compression_type in CALIBRATED and arguments.get("datamodule") is None:
            msg = f"{compression_type.name} takes the ranges of the activations from images: expected a datamodule, "
            msg += "got None. Give the data that the model was trained on."
            raise ValueError(msg)
        path = Path(super().to_openvino(export_root, *args, **kwargs))
        graph = openvino.Core().read_model(path)
        for name, value in self.description().items():
            graph.set_rt_info(value, ["model_info", name])
        with TemporaryDirectory(dir=path.parent) as folder:
            openvino.save_model(graph, Path(folder) / path.name, compress_to_fp16=False)
            del graph  # it maps the file of weights that is about to be replaced
            for suffix in (".bin", ".xml"):
                (Path(folder) / path.name).with_suffix(suffix).replace(path.with_suffix(suffix))
        return path

    def description(self) -> dict[str, str]:
        """What an exported model says of itself: classes, thresholds, image size and versions, in JSON each."""
        post_processor = self.post_processor
        thresholds = {
            f"{kind}_threshold": getattr(post_processor, f"normalized_{kind}_threshold", None)
            for kind in ("image", "pixel")
        }
        entries = {
            "model": "anomalib_hgad.Hgad",
            "class_names": self.class_names,
            "class_tensor": CLASS_TENSOR if self.model.num_classes > 1 else None,
            **{name: None if value is None else float(value) for name, value in thresholds.items()},
            "image_size": list(self.model.image_size),
            **{f"{package}_version": version(package) for package in ("anomalib", "anomalib-hgad", "torch", "timm")},
        }
        return {name: json.dumps(value) for name, value in entries.items()}

    def _compress_ov_model(
        self,
        model: Model,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Any = None,  # noqa: ANN401
        task: Any = None,  # noqa: ANN401
        max_drop: float = 0.01,
    ) -> Model:
        """INT8 in place of anomalib's, which quantises the mixture too, on test images."""
        from .quantization import compress  # noqa: PLC0415 - as onnx above

        del task
        head = [tensor.detach().cpu().numpy() for tensor in self.model.head_weights]
        return compress(model, head, compression_type, datamodule, metric, max_drop)

    def _fixed_size(self) -> tuple[int, int] | None:
        """Height and width that the pre-processor brings all images to, if it does."""
        return last_size(getattr(self.pre_processor, "transform", None))

    @contextmanager
    def _for_inference(self, image_size: tuple[int, int] | None) -> Iterator[None]:
        """With the model folded, if all images come to it in one size, and the transform in its exportable form."""
        model, pre_processor = self.model, self.pre_processor
        transform = getattr(pre_processor, "export_transform", None)
        if image_size is not None:
            self.model = fold(model, image_size)
        if pre_processor is not None:
            pre_processor.export_transform = exportable(pre_processor.transform)
        try:
            yield
        finally:
            self.model = model
            if pre_processor is not None:
                pre_processor.export_transform = transform


def _name_candidates(graph: ModelProto) -> None:
    """Give the indices of the largest class probabilities their name; with one class there are none."""
    indices = [node.output[1] for node in graph.graph.node if node.op_type == "TopK"]
    for node in graph.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name in indices:
                    names[position] = CLASS_TENSOR


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of another one when it is complete."""
    unfinished = path.with_suffix(".part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)

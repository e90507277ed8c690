# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's export, of a model that sees the images of training and test, and says what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from anomalib.deploy import CompressionType
from anomalib.models.components.base.export_mixin import ExportMixin
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from torch import nn

from .transforms import exportable, last_size

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""What PyTorch's exporter writes by itself; it converts to an older one, and prints a traceback where it cannot."""

CALIBRATED = (CompressionType.INT8_PTQ, CompressionType.INT8_ACQ)
"""Forms that need images."""


class DescribedExport(ExportMixin):
    """Exports with the antialiased resizing that anomalib's own export leaves out, and with a description."""

    model: nn.Module
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
        self._name_tensors(graph)
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
        """What an exported model says of itself: its name, thresholds, image size and versions, in JSON each."""
        thresholds = {
            f"{kind}_threshold": getattr(self.post_processor, f"normalized_{kind}_threshold", None)
            for kind in ("image", "pixel")
        }
        entries = {
            "model": f"anomalib_hgad.{type(self).__name__}",
            **{name: None if value is None else float(value) for name, value in thresholds.items()},
            "image_size": list(cast("tuple[int, int]", self.model.image_size)),
            **{f"{package}_version": version(package) for package in ("anomalib", "anomalib-hgad", "torch", "timm")},
        }
        return {name: json.dumps(value) for name, value in entries.items()}

    def _model_for_inference(self, image_size: tuple[int, int] | None) -> nn.Module:
        """The model that is exported for images of a size, or of any size."""
        del image_size
        return self.model

    def _name_tensors(self, graph: ModelProto) -> None:
        """Give tensors of a graph that users may want their names."""

    def _fixed_size(self) -> tuple[int, int] | None:
        """Height and width that the pre-processor brings all images to, if it does."""
        return last_size(getattr(self.pre_processor, "transform", None))

    @contextmanager
    def _for_inference(self, image_size: tuple[int, int] | None) -> Iterator[None]:
        """With the model as it is exported, and the transform in its exportable form."""
        model, pre_processor = self.model, self.pre_processor
        transform = getattr(pre_processor, "export_transform", None)
        self.model = self._model_for_inference(image_size)
        if pre_processor is not None:
            pre_processor.export_transform = exportable(pre_processor.transform)
        try:
            yield
        finally:
            self.model = model
            if pre_processor is not None:
                pre_processor.export_transform = transform


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of another one when it is complete."""
    unfinished = path.with_suffix(".part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)

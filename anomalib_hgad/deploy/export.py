# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's export with the preprocessing of training and test, and with metadata of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import torch
from anomalib.deploy import CompressionType
from anomalib.models.components.base.export_mixin import ExportMixin
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from torch import nn

from anomalib_hgad.common.files import explain_full_disk, move_whole
from anomalib_hgad.common.progress import phase
from anomalib_hgad.common.versions import installed_versions
from anomalib_hgad.deploy.export_settings import check_compression, check_file_name, check_input_size
from anomalib_hgad.deploy.module_names import name_modules
from anomalib_hgad.deploy.torch_export import save_program
from anomalib_hgad.deploy.transforms import check_antialiasing, exportable, last_size, takes_any_size
from anomalib_hgad.deploy.weights import seal, with_checksums
from anomalib_hgad.evaluation.post_processing import LABELS, labels_without_meaning, warn_of_missing_labels

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model

OPSET = 18
"""Native opset of PyTorch's exporter; it converts to older ones, and prints a traceback if it cannot."""

DESCRIBED_PACKAGES = ("anomalib", "anomalib-hgad", "torch", "timm")
"""Packages whose versions are in the metadata of an exported model."""

CLASS_TENSOR = "inferred_class"
"""Name of the tensor of the inferred class of each image, int64, shape (B, 1)."""

NOVELTY_TENSOR = "novelty"
"""Name of the tensor of the novelty of each image, float32, shape (B,)."""

PIXELS_TENSOR = "largest_pixels"
"""Name of the tensor of the largest pixels of each image's map, before scaling, whose mean is the image score."""


class DescribedExport(ExportMixin):
    """Exports with the antialiased resizing that anomalib's own export omits, and with metadata."""

    model: nn.Module
    pre_processor: PreProcessor | None
    post_processor: PostProcessor | None

    @property
    def stored_in_bytes(self) -> tuple[str, ...]:
        """Modules whose weights the INT8 compression types store as 8-bit integers."""
        return ("model",)

    @property
    def stored_in_half(self) -> tuple[str, ...]:
        """Modules whose weights these types store in half precision."""
        return ()

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export to a pickled PyTorch module.

        Args:
            export_root: Folder for the file.
            model_file_name: File name without suffix.

        Returns:
            The file.

        Raises:
            ValueError: If the model was not trained, or if the name is not a file name.
        """
        self.check_trained()
        check_file_name(model_file_name)
        export = super().to_torch
        with self._for_inference(self._fixed_size()):
            return _completed(export_root, lambda folder: export(folder, model_file_name))

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Path:
        """Export to ONNX, with :meth:`description` in the metadata of the file.

        Args:
            export_root: Folder for the file.
            model_file_name: File name without suffix.
            input_size: Height and width of the images. Defaults to ``None``, for images of any size.
            **kwargs: Arguments of :func:`torch.onnx.export`; by default, the opset is 18 and PyTorch prints nothing.

        Returns:
            The file.

        Raises:
            ValueError: If the model was not trained, if name or size are invalid, if images of any size are requested
                and nothing resizes them, or if the graph could not resize them like the pre-processor.
        """
        import onnx  # noqa: PLC0415 - takes half a second, with openvino, that training does not need

        self.check_trained()
        check_file_name(model_file_name)
        check_input_size(input_size)
        transform = getattr(self.pre_processor, "transform", None)
        size = self._fixed_size() or input_size
        if size is None or (input_size is None and not takes_any_size(transform)):
            msg = "The pre-processor does not begin with a Resize to a height and a width, so that the graph accepts "
            msg += "images of one size only. Expected this size as input_size=(height, width), got None."
            raise ValueError(msg)
        check_antialiasing(transform)
        kwargs.setdefault("opset_version", OPSET)
        kwargs.setdefault("verbose", False)
        export = super().to_onnx

        def described(folder: Path) -> Path:
            path = Path(export(folder, model_file_name, input_size, **kwargs))
            graph = onnx.load(path, load_external_data=False)
            onnx.helper.set_model_props(graph, with_checksums(self.description()))
            name_modules(graph)
            self._name_tensors(graph)
            onnx.save(graph, path)
            seal(path)
            return path

        with self._for_inference(size), phase("Exporting to ONNX"):
            return _completed(export_root, described)

    def to_openvino(self, export_root: Path | str, *args: Any, **kwargs: Any) -> Path:  # noqa: ANN401
        """Export to OpenVINO, with :meth:`description` under ``model_info`` in the runtime information of the file.

        Args:
            export_root: Folder for the files.
            *args: Arguments of anomalib's export.
            **kwargs: Keyword arguments of anomalib's export.

        Returns:
            The .xml file.

        Raises:
            ValueError: As in :meth:`to_onnx`, or if a setting of the compression is wrong or lacks data.
        """
        import openvino  # noqa: PLC0415 - as onnx above

        from anomalib_hgad.deploy.float32 import keep_in_float32  # noqa: PLC0415
        from anomalib_hgad.deploy.graph import core  # noqa: PLC0415

        arguments = signature(super().to_openvino).bind(export_root, *args, **kwargs).arguments
        check_compression(arguments)
        check_file_name(arguments.get("model_file_name", "model"))
        with TemporaryDirectory() as bare:
            with explain_full_disk(Path(bare).parent):
                path = Path(super().to_openvino(bare, *args, **kwargs))

            def described(folder: Path) -> Path:
                graph = core().read_model(path)
                keep_in_float32(graph)
                for name, value in with_checksums(self.description()).items():
                    graph.set_rt_info(value, ["model_info", name])
                made = folder / path.relative_to(bare)
                openvino.save_model(graph, made, compress_to_fp16=False)
                seal(made)
                return made

            return _completed(export_root, described)

    def to_torch_export(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export with ``torch.export``, with :meth:`description` in the file, for PyTorch without this package.

        anomalib has no such export type. A batch may have any number of images, of any size if the pre-processor
        resizes them.

        Args:
            export_root: Folder for the file.
            model_file_name: File name without suffix.

        Returns:
            The .pt2 file. Its program returns the outputs of :meth:`named_outputs` by name.

        Raises:
            ValueError: If the model was not trained, or if the name is not a file name.
        """
        self.check_trained()
        check_file_name(model_file_name)
        resized, is_any_size = self._fixed_size(), takes_any_size(getattr(self.pre_processor, "transform", None))
        size = resized or cast("tuple[int, int]", self.model.image_size)

        def described(folder: Path) -> Path:
            path = folder / "weights" / "torch_export" / f"{model_file_name}.pt2"
            module = cast("nn.Module", self).eval()
            save_program(path, module, self.named_outputs, size, is_any_size, self.description())
            return path

        with self._for_inference(resized), phase("Exporting by torch.export"):
            return _completed(export_root, described)

    def named_outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the outputs of an exported model by name.

        Args:
            images: Images with values from 0 to 1, shape (B, 3, height, width).

        Returns:
            ``pred_score``, ``pred_label``, ``anomaly_map`` and ``pred_mask``, if the model has them.
        """
        outputs = cast("nn.Module", self)(images)._asdict()
        return {name: value for name, value in outputs.items() if value is not None}

    def check_trained(self) -> None:
        """Check that the model was trained."""

    def description(self) -> dict[str, str]:
        """Return the metadata of an exported model: its name, thresholds, image size and versions, each as JSON."""
        without_meaning = labels_without_meaning(self.post_processor)
        thresholds = {
            f"{kind}_threshold": None
            if label in without_meaning
            else getattr(self.post_processor, f"normalized_{kind}_threshold", None)
            for label, kind in LABELS.items()
        }
        entries = {
            "model": f"anomalib_hgad.{type(self).__name__}",
            **{name: None if value is None else float(value) for name, value in thresholds.items()},
            "image_size": list(cast("tuple[int, int]", self.model.image_size)),
            **{f"{package}_version": number for package, number in installed_versions(DESCRIBED_PACKAGES).items()},
        }
        return {name: json.dumps(value) for name, value in entries.items()}

    def _model_for_inference(self, image_size: tuple[int, int] | None) -> nn.Module:
        """Return the model to export for images of one size, or of any size."""
        del image_size
        return self.model

    def _name_tensors(self, graph: ModelProto) -> None:
        """Name the tensors of a graph that users may need."""

    def _fixed_size(self) -> tuple[int, int] | None:
        """Height and width that the pre-processor resizes or crops all images to, if it does."""
        return last_size(getattr(self.pre_processor, "transform", None))

    def _compress_ov_model(
        self,
        model: Model,
        compression_type: CompressionType,
        datamodule: Any = None,  # noqa: ANN401 - anomalib has no types
        metric: Any = None,  # noqa: ANN401
        task: Any = None,  # noqa: ANN401
        max_drop: float = 0.01,
    ) -> Model:
        """Quantise to INT8, in place of anomalib's method, which quantises everything, on test images of one size."""
        from anomalib_hgad.deploy.quantization import compress, in_half  # noqa: PLC0415 - nncf takes seconds, and few need it

        del task
        class_names = json.loads(self.description().get("class_names", "[]"))
        return compress(
            in_half(model, self.stored_in_half),
            self.stored_in_bytes,
            compression_type,
            datamodule,
            metric,
            max_drop,
            class_names,
        )

    @contextmanager
    def _for_inference(self, image_size: tuple[int, int] | None) -> Iterator[None]:
        """Use the model and the transform in their exportable form, without gradients.

        If gradients are disabled only within the model, PyTorch's exporter loses the modules of the operations.
        """
        warn_of_missing_labels(self.post_processor)
        model, pre_processor = self.model, self.pre_processor
        transform = getattr(pre_processor, "export_transform", None)
        self.model = self._model_for_inference(image_size)
        if pre_processor is not None:
            pre_processor.export_transform = exportable(pre_processor.transform)
        try:
            with torch.no_grad():
                yield
        finally:
            self.model = model
            if pre_processor is not None:
                pre_processor.export_transform = transform


def _completed(export_root: Path | str, export: Callable[[Path], Path]) -> Path:
    """Export to a temporary folder, and move the files when they are complete.

    Args:
        export_root: Folder for the exported files.
        export: Exports to a folder; returns the path of the file there.

    Returns:
        The file.
    """
    root = Path(export_root)
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root, prefix=".unfinished-") as folder, explain_full_disk(root):
        made = export(Path(folder))
        place = root / made.relative_to(folder)
        move_whole(made, place)
    return place

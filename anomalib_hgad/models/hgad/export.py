# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Export of a model of several classes, folded for inference.

anomalib's inferencers refuse a graph with an output that they do not know, so the inferred class is no output. The
graph computes it all the same, and names it :data:`CLASS_TENSOR`: whoever wants it makes that tensor an output.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType

from anomalib_hgad.deploy.export import CLASS_TENSOR, DescribedExport
from anomalib_hgad.models.hgad.folding import fold
from anomalib_hgad.models.hgad.torch_model import HgadModel

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model


class FoldedExport(DescribedExport):
    """Replaces what anomalib exports by the same model with all constants computed, and adds its classes."""

    class_names: list[str]
    model: HgadModel

    def description(self) -> dict[str, str]:
        """What an exported model says of itself: classes, thresholds, image size and versions, in JSON each."""
        class_tensor = CLASS_TENSOR if self.model.num_classes > 1 else None
        classes = {"class_names": json.dumps(self.class_names), "class_tensor": json.dumps(class_tensor)}
        return super().description() | classes

    def _model_for_inference(self, image_size: tuple[int, int] | None) -> HgadModel:
        """The model, folded if all images come to it in one size."""
        return self.model if image_size is None else fold(self.model, image_size)

    def _name_tensors(self, graph: ModelProto) -> None:
        """Give the indices of the largest class probabilities their name; with one class there are none."""
        indices = [node.output[1] for node in graph.graph.node if node.op_type == "TopK"]
        for node in graph.graph.node:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    if name in indices:
                        names[position] = CLASS_TENSOR

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
        from anomalib_hgad.deploy.quantization import compress  # noqa: PLC0415 - as onnx above

        del task
        head = [tensor.detach().cpu().numpy() for tensor in self.model.head_weights]
        return compress(model, head, compression_type, datamodule, metric, max_drop)

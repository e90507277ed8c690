# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files of ``torch.export``, an export type that anomalib does not have."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anomalib_hgad.deploy.description import values

DESCRIPTION_FILE = "model_info.json"
"""File of the metadata within a .pt2 file."""

Outputs = dict[str, torch.Tensor]


class _NamedOutputs(nn.Module):
    """A module with named outputs: ``torch.export`` does not support anomalib's classes."""

    def __init__(self, module: nn.Module, named_outputs: Callable[[torch.Tensor], Outputs]) -> None:
        super().__init__()
        self.module = module
        self.named_outputs = named_outputs

    def forward(self, images: torch.Tensor) -> Outputs:
        return self.named_outputs(images)


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Disable gradients of the weights, so that the outputs of a program do not require them."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad = True


def save_program(
    path: Path,
    module: nn.Module,
    named_outputs: Callable[[torch.Tensor], Outputs],
    size: tuple[int, int],
    is_any_size: bool,
    description: Mapping[str, str],
) -> None:
    """Write a .pt2 file whose program accepts batches of any number of images.

    Args:
        path: The file. Its folder is created.
        module: The module, in eval mode.
        named_outputs: Method of the module that returns its outputs by name.
        size: Height and width of the images.
        is_any_size: Whether the module resizes images, so that they may be of any size.
        description: Metadata of the model.
    """
    # A program must not depend on height and width being equal, or on images having the size that they are resized to.
    height, width = (size[0] + 1, size[1] + 2) if is_any_size else size
    images = torch.rand(2, 3, height, width, device=next(module.parameters()).device)
    dynamic = dict.fromkeys((0, 2, 3) if is_any_size else (0,), torch.export.Dim.DYNAMIC)
    path.parent.mkdir(parents=True)
    with _without_gradients(module), warnings.catch_warnings():
        # Warns of tensors that are views of others; they are saved as they are.
        warnings.filterwarnings("ignore", "No complete tensor found in the group")
        program = torch.export.export(_NamedOutputs(module, named_outputs), (images,), dynamic_shapes=(dynamic,))
        torch.export.save(program, path, extra_files={DESCRIPTION_FILE: json.dumps(dict(description))})


def load_program(path: Path) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    """Read a .pt2 file.

    Args:
        path: The file.

    Returns:
        Its program, and its metadata as in :func:`~anomalib_hgad.deploy.description.of_onnx`.

    Raises:
        ValueError: If ``TRUST_REMOTE_CODE``, anomalib's permission to read pickles, is not set in the environment.
    """
    if os.environ.get("TRUST_REMOTE_CODE", "0").lower() not in {"1", "true"}:
        msg = "PyTorch reads parts of a .pt2 file as pickles, which can execute code. If you trust the file, set "
        msg += "TRUST_REMOTE_CODE=1 in the environment."
        raise ValueError(msg)
    texts = {DESCRIPTION_FILE: ""}
    program = torch.export.load(path, extra_files=texts)
    return program, values(json.loads(texts[DESCRIPTION_FILE] or "{}"))

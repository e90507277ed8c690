# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Constants that have a row for each class, when classes come or go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def append_rows(module: nn.Module, **rows: torch.Tensor) -> None:
    """Append rows to parameters and buffers of a module.

    Args:
        module: The module.
        **rows: The rows, by the name of what they are appended to.
    """
    for name, added in rows.items():
        old = getattr(module, name)
        _set(module, name, torch.cat((old.detach(), added.to(old))))


def keep_rows(module: nn.Module, rows: Sequence[int], *names: str) -> None:
    """Drop rows of parameters and buffers of a module.

    Args:
        module: The module.
        rows: Those that are left, in this order.
        *names: Names of the parameters and buffers.
    """
    for name in names:
        _set(module, name, getattr(module, name).detach()[list(rows)])


def _set(module: nn.Module, name: str, value: torch.Tensor) -> None:
    old = getattr(module, name)
    setattr(module, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A plugin for pytest: anomalib's tests build backbones with random weights, download none, and train for one epoch."""

from __future__ import annotations

from typing import Any

import timm
from anomalib.engine import Engine

create_model = timm.create_model
set_up_engine = Engine.__init__


def _with_random_weights(*args: Any, pretrained: bool = False, **kwargs: Any) -> Any:
    del pretrained
    return create_model(*args, pretrained=False, **kwargs)


def _for_one_epoch(engine: Engine, *args: Any, max_epochs: int = 1, **kwargs: Any) -> None:
    """Padim, for which the tests are written, needs no more."""
    set_up_engine(engine, *args, max_epochs=max_epochs, **kwargs)


timm.create_model = _with_random_weights
Engine.__init__ = _for_one_epoch

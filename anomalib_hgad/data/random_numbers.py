# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Random numbers that do not depend on anything that a process did before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng


@contextmanager
def own_random_numbers(seed: int | None) -> Iterator[None]:
    """Draw all random numbers on the CPU from a seed, and restore the earlier random state at the end.

    Args:
        seed: The seed; ``None`` for 0.
    """
    seed = seed or 0
    with isolate_rng(include_cuda=False):  # worker processes must not touch an accelerator
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The time of a model is that of its work, also on a device that works on while the program goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from anomalib_hgad.benchmark import execution
from anomalib_hgad.benchmark.execution import ModelClock


class Device:
    """A device that does what is left of its work when it is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.left = 0.0
        monkeypatch.setattr(execution.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(torch.accelerator, "synchronize", self.wait)

    def wait(self, device: torch.device) -> None:
        assert device.type == "cuda"
        self.now, self.left = self.now + self.left, 0.0


@pytest.mark.parametrize(("kind", "seconds"), [("cuda", 6.0), ("cpu", 0.0)])
def test_clock_waits_for_the_device(kind: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it began before a batch is not counted, all that it began for the batch is. A processor is done at once."""
    clock, device = ModelClock(), Device(monkeypatch)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(kind)))
    for size in (4, 2):
        device.left += 100  # of copying the images
        clock.on_test_batch_start(trainer, None, None, 0)
        device.left += size
        clock.on_test_batch_end(trainer, None, None, SimpleNamespace(batch_size=size), 0)
    assert (clock.seconds, clock.images) == (seconds, 6)

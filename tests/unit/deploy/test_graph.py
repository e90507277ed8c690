# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Compiled graphs come and go without harm to the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

COME_AND_GO = """
import signal, subprocess
import numpy as np
import openvino
from openvino import opset13
from anomalib_hgad.deploy.graph import compile_graph

def compiled():
    images = opset13.parameter([1, 3, 8, 8], np.float32)
    graph = openvino.Model([opset13.relu(images)], [images])
    return compile_graph(graph, "CPU", {}, (8, 8))

first, second = compiled(), compiled()
del first
del second
signal.signal(signal.SIGCHLD, lambda *_: None)
subprocess.run(["true"], check=True)
print("alive")
"""


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_child_that_ends_is_no_end_of_the_process() -> None:
    """As PyTorch's data loaders do, the process handles the signal of a child after two models came and went."""
    ended = subprocess.run([sys.executable, "-c", COME_AND_GO], capture_output=True, text=True, check=False)
    assert ended.stdout == "alive\n", ended.stderr
    assert ended.returncode == 0

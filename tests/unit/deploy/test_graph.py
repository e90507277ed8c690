# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported files as OpenVINO reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_hgad.deploy import graph as module
from anomalib_hgad.deploy.graph import IN_FLOAT32, compile_graph, read_graph
from tests.helpers.drawn_models import CLASSES, brightness_model, plain_model


def test_class_and_novelty_become_outputs(tmp_path: Path) -> None:
    graph, description = read_graph(brightness_model(tmp_path / "model.xml"))
    names = [name for output in graph.outputs for name in output.names]
    assert names[-2:] == ["novelty", "inferred_class"]
    assert description["class_names"] == CLASSES


def test_file_of_another_package_says_nothing_of_itself(tmp_path: Path) -> None:
    graph, description = read_graph(plain_model(tmp_path / "model.xml"))
    assert (len(graph.outputs), description) == (2, {})


@pytest.mark.parametrize(
    ("shape", "expected"), [((-1, 3, -1, -1), (1, 3, 20, 30)), ((1, 3, 6, 7), (1, 3, 6, 7))], ids=["any", "one size"]
)
def test_compiled_graph_has_inferred_once(
    shape: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread that compiles it: the first inference of two threads at once may never end."""
    graph, _ = read_graph(brightness_model(tmp_path / "model.xml", shape=shape))
    seen, infer = [], module.infer
    monkeypatch.setattr(module, "infer", lambda request, image: seen.append(image.shape) or infer(request, image))
    compile_graph(graph, "CPU", IN_FLOAT32, (20, 30))
    assert seen == [expected]

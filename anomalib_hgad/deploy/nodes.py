# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Operations of OpenVINO's graphs, read and exchanged."""

from __future__ import annotations

from openvino import Node, Output


def sources_of(node: Node) -> list[Output]:
    """What enters an operation."""
    return [entry.get_source_output() for entry in node.inputs()]


def replace(node: Node, by: Node) -> None:
    """Put an operation of one result in the place of another, whose names it takes."""
    old, new = node.output(0), by.output(0)
    names = old.get_names()
    for entry in old.get_target_inputs():
        entry.replace_source_output(new)
    old.set_names(set())
    new.set_names(names)
    by.set_friendly_name(node.get_friendly_name())

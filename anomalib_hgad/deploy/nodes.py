# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Reads and replaces operations of OpenVINO graphs."""

from __future__ import annotations

from openvino import Node, Output


def sources_of(node: Node) -> list[Output]:
    """Return the inputs of an operation."""
    return [entry.get_source_output() for entry in node.inputs()]


def replace(node: Node, by: Node) -> None:
    """Replace an operation by another one, both with one output; the new one gets the names of the old one."""
    old, new = node.output(0), by.output(0)
    names = old.get_names()
    for entry in old.get_target_inputs():
        entry.replace_source_output(new)
    old.set_names(set())
    new.set_names(names)
    by.set_friendly_name(node.get_friendly_name())

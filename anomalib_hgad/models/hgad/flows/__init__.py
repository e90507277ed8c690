# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Families of flows. The mixture, its losses and the scores are the same for all."""

from __future__ import annotations

import inspect
from argparse import ArgumentError
from collections.abc import Mapping
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser

from anomalib_hgad.models.hgad.flows.base import FeatureFlow, Latents, PointwiseFlow
from anomalib_hgad.models.hgad.flows.conditional import ConditionalFlow
from anomalib_hgad.models.hgad.flows.fastflow import FastFlow
from anomalib_hgad.models.hgad.flows.linear import LinearFlow
from anomalib_hgad.models.hgad.flows.semantic import SemanticFlow

FAMILIES: dict[str, type[FeatureFlow]] = {
    "cflow": ConditionalFlow,
    "fastflow": FastFlow,
    "semantic": SemanticFlow,
    "linear": LinearFlow,
}
"""Classes of the families by name."""

__all__ = [
    "FAMILIES",
    "ConditionalFlow",
    "FastFlow",
    "FeatureFlow",
    "Latents",
    "PointwiseFlow",
    "SemanticFlow",
    "check_flow_arguments",
    "flow_options",
]


def flow_options(flow: str) -> dict[str, Any]:
    """Return the options of a family with their defaults.

    Args:
        flow: Name of the family.

    Returns:
        The defaults by name.
    """
    options = inspect.signature(FAMILIES[flow]).parameters
    return {name: option.default for name, option in options.items() if name != "dim"}


def check_flow_arguments(flow: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check options of a family against its constructor; the constructor itself then checks their range.

    Args:
        flow: Name of the family.
        arguments: Options by name.

    Returns:
        The options in the types that the constructor takes, such as a tuple in place of a list.

    Raises:
        ValueError: If there is no such family, or if it has no such option.
        TypeError: If an option has the wrong type.
    """
    if flow not in FAMILIES:
        msg = f"Expected flow to be one of {', '.join(map(repr, FAMILIES))}; got {flow!r}."
        raise ValueError(msg)
    family = FAMILIES[flow]
    options = flow_options(flow)
    if unknown := sorted(set(arguments) - set(options)):
        msg = f"flow_arguments: {flow!r} has no option {', '.join(unknown)}. It has: {', '.join(options) or 'none'}."
        raise ValueError(msg)
    types = get_type_hints(family.__init__)
    parser = ArgumentParser(exit_on_error=False)  # types are checked as those of all other arguments
    for name in arguments:
        parser.add_argument(f"--{name}", type=types.get(name, Any))
    try:
        parsed = parser.parse_object(dict(arguments))
    except ArgumentError as error:
        msg = f"flow_arguments of {flow!r}: {' '.join(str(error).split())}"
        raise TypeError(msg) from error
    for name, value in arguments.items():
        if value is None and options[name] is not None:  # the parser takes None for no value
            msg = f"flow_arguments of {flow!r}: expected a value for {name}, got None. Leave it out for the default."
            raise TypeError(msg)
    return {name: parsed[name] for name in arguments}

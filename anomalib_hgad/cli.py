# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-hgad``.

Only the subcommand that is called is imported: importing PyTorch and anomalib takes many seconds, and neither `watch`
nor a help text needs them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import get_data
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser

from anomalib_hgad.compatibility import explain

COMMANDS = {
    "report": "report.command",
    "benchmark": "benchmark.command",
    "watch": "deploy.watch.command",
    "monitor": "report.monitor.command",
    "add-product": "products.command",
    "remove-product": "products.command",
    "list-products": "products.command",
    "name-defects": "products.defects",
    "check-export": "report.parity.command",
}
"""Subcommands, and the modules with their functions."""

BY_HAND: dict[str, dict[str, dict[str, Any]]] = {
    "watch": {
        "folder": {"type": Path, "help": "the folder; its subfolders are watched too"},
        "--once": {"action": "store_true", "help": "stop when all images in the folder are scored"},
    },
    # jsonargparse takes a list as one argument.
    "report": {"--compare": {"nargs": "+", "type": Path, "default": [], "help": "folders of up to three other runs"}},
    "monitor": {"predictions": {"nargs": "+", "type": Path, "help": "prediction tables, or folders with one each"}},
    "check-export": {"exports": {"nargs": "+", "type": Path, "help": "exported files"}},
}
"""Positional arguments and flags without a value, which jsonargparse does not derive from a function."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Command-line arguments. Defaults to ``None``, for those of the process.

    Returns:
        Exit status: 0 on success.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = ArgumentParser(
        prog="anomalib-hgad",
        description="Tools for multi-class anomaly detection: reports, benchmarks, monitoring, export, products.",
    )
    commands = parser.add_subcommands()
    function: Any = None
    names: list[str] = []
    for command, home in COMMANDS.items():
        of_command = ArgumentParser()
        if given[:1] == [command]:
            try:
                module = import_module(f"anomalib_hgad.{home}")
            except ImportError as error:
                parser.error(explain(error) or str(error))
            function = getattr(module, _function_name(command))
            names = _add_arguments(of_command, command, function)
        commands.add_subcommand(command, of_command, help=_summary(command))  # type: ignore[no-untyped-call]
    settings = parser.instantiate_classes(parser.parse_args(given))
    chosen = settings[settings.subcommand]
    try:
        failures = function(**{name: chosen[name] for name in names})
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except ImportError as error:  # some functions import what takes long
        parser.error(explain(error) or str(error))
    return 1 if settings.subcommand in {"benchmark", "check-export"} and failures else 0


def _add_arguments(parser: ArgumentParser, command: str, function: Any) -> list[str]:  # noqa: ANN401 - as jsonargparse
    """Add the arguments of a function to a parser; return their names."""
    by_hand = {name.removeprefix("--"): name for name in BY_HAND.get(command, {})}
    parser.description = (function.__doc__ or "").partition("\n    Args:")[0]
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with the arguments")
    names = parser.add_function_arguments(function, as_positional=command == "report", skip=set(by_hand))
    for name in by_hand.values():
        parser.add_argument(name, **BY_HAND[command][name])
    return [*names, *by_hand]


def _function_name(command: str) -> str:
    return command.replace("-", "_")


def _summary(command: str) -> str:
    """First line of a function's docstring, read from its source; empty in a program that has none."""
    try:
        source = get_data("anomalib_hgad", f"{COMMANDS[command].replace('.', '/')}.py") or b""
    except OSError:
        return ""
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    text = next((ast.get_docstring(node) for node in functions if node.name == _function_name(command)), None)
    return (text or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-hgad``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentParser

from anomalib_hgad.compatibility import explain_missing_names

with explain_missing_names():
    from anomalib_hgad.benchmark.command import benchmark
    from anomalib_hgad.products.command import add_product, list_products, remove_product
    from anomalib_hgad.products.defects import name_defects
    from anomalib_hgad.report.command import report
    from anomalib_hgad.report.monitor.command import monitor
    from anomalib_hgad.report.parity.command import check_export

LISTS = {
    "monitor": ("predictions", "tables, or folders that hold one each"),
    "check-export": ("exports", "exported files"),
}
"""Lists that commands take without a name, and what they are: jsonargparse takes a list as one argument."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Those of the command line. Defaults to ``None``, for the process's own.

    Returns:
        Exit status: 0 if all went well.
    """
    parser = ArgumentParser(
        prog="anomalib-hgad", description="Reports, benchmarks and products of models of many classes."
    )
    commands = parser.add_subcommands()
    functions, names = {}, {}
    for function in (
        report,
        benchmark,
        monitor,
        add_product,
        remove_product,
        list_products,
        name_defects,
        check_export,
    ):
        command = function.__name__.replace("_", "-")
        of_command = ArgumentParser(description=function.__doc__)
        of_command.add_argument("--config", action=ActionConfigFile, help="YAML file with the arguments")
        functions[command] = function
        names[command] = of_command.add_function_arguments(
            function, as_positional=function is report, skip={name for name, _ in LISTS.values()}
        )
        if command in LISTS:
            name, what = LISTS[command]
            of_command.add_argument(name, nargs="+", type=Path, help=what)
            names[command].append(name)
        commands.add_subcommand(command, of_command)  # type: ignore[no-untyped-call]
    settings = parser.instantiate_classes(parser.parse_args(arguments))
    chosen = settings[settings.subcommand]
    values = {name: chosen[name] for name in names[settings.subcommand]}
    try:
        failures = functions[settings.subcommand](**values)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        parser.error(str(error))
    return 1 if settings.subcommand in {"benchmark", "check-export"} and failures else 0


if __name__ == "__main__":
    sys.exit(main())

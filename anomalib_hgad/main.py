# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-hgad``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jsonargparse import ActionConfigFile, ArgumentParser

from anomalib_hgad.benchmark.command import benchmark


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Those of the command line. Defaults to ``None``, for the process's own.

    Returns:
        Exit status: 0 if all went well.
    """
    parser = ArgumentParser(prog="anomalib-hgad", description="Benchmarks and reports of models of many classes.")
    commands = parser.add_subcommands()
    of_benchmark = ArgumentParser(description=benchmark.__doc__)
    of_benchmark.add_argument("--config", action=ActionConfigFile, help="YAML file with the arguments")
    names = of_benchmark.add_function_arguments(benchmark)
    commands.add_subcommand("benchmark", of_benchmark)  # type: ignore[no-untyped-call]
    settings = parser.instantiate_classes(parser.parse_args(arguments))
    try:
        failures = benchmark(**{name: settings["benchmark"][name] for name in names})
    except ValueError as error:
        parser.error(str(error))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Speed and memory, side by side in one process: python tests/benchmarks/run.py [--only NAME,...] [--json FILE]."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import closed_form, images, models
from tests.benchmarks.markdown import markdown
from tests.benchmarks.measure import environment

SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "flow": models.flow,
    "step": models.step,
    "cache": images.cache,
    "inference": images.inference,
    "scaling": images.scaling,
    "roofline": models.roofline,
    "closed_form": closed_form.closed_form,
}


def table(name: str, section: dict[str, Any]) -> str:
    """Markdown of a section."""
    figures = [*section["ratios"].items(), *section["medians"].items()]
    rows = [(key, f"{value:.4g}") for key, value in figures]
    return f"\n## {name}: {section['what']}\n\n" + markdown(["", ""], rows)


def names(text: str) -> list[str]:
    """Names of sections, in the order they are run in."""
    chosen = text.split(",")
    unknown = set(chosen) - set(SECTIONS)
    if unknown:
        msg = f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}"
        raise argparse.ArgumentTypeError(msg)
    return [name for name in SECTIONS if name in chosen]


def main(command: list[str] | None = None) -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=names, default=list(SECTIONS), metavar=",".join(SECTIONS))
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args(command)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    results = {}
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in arguments.only:
                results[name] = SECTIONS[name]() | {"made_with": environment()}
                print(table(name, results[name]), flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        logging.disable(disabled)


if __name__ == "__main__":
    main()

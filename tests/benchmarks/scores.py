# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What each score sees in every class, of the same trainings.

Not the contrast, which takes covariances of the classes that are not trained.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[2]))

from anomalib_hgad.common.files import write_json
from anomalib_hgad.models.hgad.anomaly_map import ScoreKind
from tests.benchmarks.convergence import Variant, train_model
from tests.benchmarks.image_sets import aurocs, encode, split_data
from tests.benchmarks.markdown import markdown
from tests.benchmarks.measure import mean_and_deviation
from tests.benchmarks.results_model import results_model, results_parser

MEAN = "mean"
SCORES = [score for score in get_args(ScoreKind) if score != "contrast"]


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """For every seed and score image and pixel AUROC by class, and their means, in percent."""
    size = (arguments.image_size, arguments.image_size)
    datamodule, _, normalise = split_data(arguments.data, size)
    names = datamodule.class_names
    encoder = results_model(arguments).model
    train, test = (encode(encoder, items, normalise) for items in (datamodule.train_data, datamodule.test_data))
    runs: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        module = results_model(arguments, lr=1e-3, seed=seed)
        module.model.set_num_classes(len(names))
        train_model(module, train, Variant(arguments.epochs, positions=module.position_share, lr=module.lr))
        module.model.eval()
        runs.append({"seed": seed})
        for score in SCORES:
            module.model.anomaly_map_generator.score = score
            of_classes = aurocs(module.model, train, test, size)
            means = [
                statistics.mean(value for value in values if value is not None)
                for values in zip(*of_classes, strict=True)
            ]
            runs[-1][score] = dict(zip([*names, MEAN], [*of_classes, means], strict=True))
        print(table(runs), flush=True)
        if arguments.json:
            write_json(runs, arguments.json)
    return runs


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: image / pixel AUROC, mean and deviation over the seeds."""
    scores = [key for key in runs[0] if key != "seed"]
    names = list(runs[0][scores[0]])
    rows = []
    for score in scores:
        cells = [" / ".join(map(cell, zip(*(a_run[score][name] for a_run in runs), strict=True))) for name in names]
        rows.append([score, *cells])
    return markdown(["score", *names], rows)


def cell(values: tuple[float | None, ...]) -> str:
    """Mean and deviation; a dash where there is no figure."""
    known = [value for value in values if value is not None]
    return mean_and_deviation(known) if known else "–"


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = results_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    run(parser.parse_args(command))


if __name__ == "__main__":
    main()

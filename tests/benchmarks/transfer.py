# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which settings are better than others on most products, found without a test image.

A fifth of each class's normal training images is held out. They, and the same images with synthetic anomalies, take the
place of a test: AUROC of both, class by class. The figures on the test images stand beside them and choose nothing,
unless the defects are drawn ones, as the demo's are.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from anomalib_hgad.common.files import write_json
from anomalib_hgad.data.synthetic_anomalies import SyntheticAnomalies
from tests.benchmarks.convergence import Variant, train_model
from tests.benchmarks.image_sets import Images, aurocs, encode, split_data
from tests.benchmarks.markdown import markdown
from tests.benchmarks.results_model import results_model, results_parser

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "product": {"score": "product"},
    "log_likelihood": {"score": "log_likelihood"},
    "lambda_2_10": {"loss_weights": {"mutual_information": 10}},
    "one_scale": {"levels": {"layer3": [1.0]}},
    "layers_2_3": {"levels": {"layer2": [1.0], "layer3": [1.0]}},
}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All settings with all seeds: AUROC on synthetic anomalies and on the test images, by class."""
    size = (arguments.image_size, arguments.image_size)
    datamodule, held_out, normalise = split_data(arguments.data, size)
    parts = {
        "train": datamodule.train_data,
        "synthetic": SyntheticAnomalies(held_out, list(range(len(held_out))), copies=2),
        "test": datamodule.test_data,
    }
    encoded: dict[str, Images] = {}
    encoded_by: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for name in arguments.settings:
        runs = []
        for seed in arguments.seeds:
            module = results_model(arguments, **{"lr": 1e-3, "seed": seed} | SETTINGS[name])
            model = module.model
            levels = SETTINGS[name].get("levels")
            if not encoded or levels != encoded_by:
                encoded = {part: encode(model, items, normalise) for part, items in parts.items()}
                encoded_by = levels
            model.set_num_classes(len(datamodule.class_names))
            variant = Variant(arguments.epochs, positions=module.position_share, lr=module.lr)
            seconds = train_model(module, encoded["train"], variant)
            model.eval()
            runs.append({"seed": seed, "seconds_per_epoch": seconds})
            for part in ("synthetic", "test"):
                of_classes = aurocs(model, encoded["train"], encoded[part], size)
                runs[-1][part] = dict(zip(datamodule.class_names, of_classes, strict=True))
        results[name] = {"settings": SETTINGS[name], "runs": runs}
        print(table(results), flush=True)
        if arguments.json:
            write_json(results, arguments.json)
    return results


def table(results: dict[str, Any]) -> str:
    """Markdown: image / pixel AUROC on synthetic anomalies of every class, mean over the seeds; test images beside."""
    names = list(next(iter(results.values()))["runs"][0]["synthetic"])
    rows = []
    for name, result in results.items():
        cells = [figures([a_run["synthetic"][of_class] for a_run in result["runs"]]) for of_class in names]
        cells += [
            figures([row for a_run in result["runs"] for row in a_run[part].values()]) for part in ("synthetic", "test")
        ]
        rows.append([name, *cells])
    return markdown(["setting", *names, "mean", "test images"], rows)


def figures(rows: list[tuple[float, float | None]]) -> str:
    """Means of image and pixel AUROC."""
    images, pixels = zip(*rows, strict=True)
    with_masks = [pixel for pixel in pixels if pixel is not None]
    return f"{statistics.mean(images):.1f} / {statistics.mean(with_masks):.1f}"


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = results_parser(__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=12)
    run(parser.parse_args(command))


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints exported in INT8_PTQ, for images of any size and of one: what 8 bits change in scores and labels.

Checkpoints of the same name are seeds of one model: their figures are given as mean and standard deviation. The
reference is each checkpoint in PyTorch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from anomalib.deploy import CompressionType

sys.path.insert(0, str(Path(__file__).parents[2]))

from anomalib_hgad import MultiClass
from anomalib_hgad.data.batch import ClassImageItem
from anomalib_hgad.report.parity.exports import load_export
from anomalib_hgad.report.parity.outputs import Outputs
from anomalib_hgad.report.parity.reference import Reference
from tests.benchmarks.accuracy import mean_aurocs
from tests.benchmarks.markdown import markdown
from tests.benchmarks.measure import environment, mean_and_deviation

REFERENCE = "PyTorch"
FORMS = {"INT8_PTQ, any size": False, "INT8_PTQ, one size": True}
"""Forms, and whether they take images of the model's size alone."""

Figures = dict[str, float]


def aurocs(outputs: Sequence[Outputs], items: Sequence[ClassImageItem]) -> Figures:
    """Mean AUROC over the classes, in percent."""
    scores, maps = np.array([one.pred_score for one in outputs]), np.stack([one.anomaly_map for one in outputs])
    return mean_aurocs(scores, maps, items)


def figures(outputs: Sequence[Outputs], expected: Sequence[Outputs], items: Sequence[ClassImageItem]) -> Figures:
    """AUROC of a form, and how far it is from the checkpoint."""
    own, reference = aurocs(outputs, items), aurocs(expected, items)
    scores, expected_scores = (np.array([one.pred_score for one in some]) for some in (outputs, expected))
    same = [one.pred_label == other.pred_label for one, other in zip(outputs, expected, strict=True)]
    return own | {
        "image AUROC, difference": own["image AUROC"] - reference["image AUROC"],
        "pixel AUROC, difference": own["pixel AUROC"] - reference["pixel AUROC"],
        "largest score difference": float(np.abs(scores - expected_scores).max() / np.ptp(expected_scores)),
        "same label, %": 100 * statistics.mean(same),
    }


def run(checkpoint: Path, datamodule: MultiClass, items: Sequence[ClassImageItem]) -> dict[str, Figures]:
    """Figures of all forms of a checkpoint."""
    reference = Reference(checkpoint)
    expected = [reference.predict(item.image) for item in items]
    results = {REFERENCE: aurocs(expected, items)}
    for form, of_one_size in FORMS.items():
        with TemporaryDirectory() as folder:
            size = reference.model.model.image_size if of_one_size else None
            file = reference.model.to_openvino(
                folder, compression_type=CompressionType.INT8_PTQ, datamodule=datamodule, input_size=size
            )
            export = load_export(Path(file))
            results[form] = figures([export.predict(item.image) for item in items], expected, items)
    return results


def table(results: dict[str, list[dict[str, Figures]]]) -> str:
    """Markdown, a row for each form of each model."""
    rows = {(name, form): [one[form] for one in of_seeds] for name, of_seeds in results.items() for form in of_seeds[0]}
    columns = list(dict.fromkeys(column for of_seeds in rows.values() for column in of_seeds[0]))
    lines = []
    for (name, form), of_seeds in rows.items():
        cells = [
            mean_and_deviation([one[column] for one in of_seeds], 2) if column in of_seeds[0] else "–"
            for column in columns
        ]
        lines.append([name, form, len(of_seeds), *cells])
    return markdown(["", "form", "seeds", *columns], lines, texts=2)


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True, nargs="+", metavar="NAME=FILE", help="Hgad's or UniAd's")
    parser.add_argument("--data", type=Path, required=True, help="folder whose subfolders are classes in MVTec layout")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args(command)
    datamodule = MultiClass(root=arguments.data, eval_batch_size=1, num_workers=0)
    datamodule.setup()
    items = [datamodule.test_data[index] for index in range(len(datamodule.test_data))]
    results: dict[str, list[dict[str, Figures]]] = {}
    for given in arguments.ckpt_path:
        name, _, path = given.partition("=")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.setdefault(name, []).append(run(Path(path), datamodule, items))
        print(name, results[name][-1], flush=True)
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps({"made_with": environment(), "models": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""How many defects get their right name by a few known ones of each kind.

Of every product with several kinds of defects some images of each kind are known, drawn anew each time, and the others
are named. Then each kind in turn is left out of the known ones: its images should be called other. Beside the products
of --data stand those of the demo, of which there are more images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.common.files import write_json
from anomalib_hgad.data.reserved_names import OTHER
from anomalib_hgad.demo.images import write_demo_dataset
from anomalib_hgad.models.hgad.defect_kinds import KnownDefects
from anomalib_hgad.products.defects import known_images
from tests.benchmarks.image_sets import BATCH
from tests.benchmarks.markdown import markdown
from tests.benchmarks.results_model import data_parser
from tests.helpers.engines import engine

KNOWN = 3
"""Known defects of each kind, but one fewer than there are of the smallest."""


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All products."""
    results: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        demo = write_demo_dataset(Path(folder) / "demo", train=arguments.train, good=1, per_kind=arguments.per_kind)
        for root in (arguments.data, demo):
            model = Hgad(backbone_weights=arguments.weights, image_size=arguments.image_size, seed=0)
            data = MultiClass(root=root, train_batch_size=BATCH, eval_batch_size=BATCH, num_workers=0)
            engine(Path(folder), max_epochs=1).fit(model, datamodule=data)
            several = {name: kinds for name, kinds in known_images(root).items() if len(kinds) > 1}
            for name, known in model.name_defects(several).items():
                results[name] = of_product(known, arguments.draws)
    print(table(results))
    if arguments.json:
        write_json(results, arguments.json)
    return results


def of_product(defects: KnownDefects, draws: int) -> dict[str, float]:
    """Figures of a product, in percent of its images that are not known, mean over the draws.

    Args:
        defects: All its defects.
        draws: Number of draws.
    """
    kinds = np.array(defects.kinds)
    names = sorted(set(kinds))
    count = min(KNOWN, min(int((kinds == name).sum()) for name in names) - 1)
    rest = {name: int((kinds == name).sum()) - count for name in names}
    nearest, right, other, strange = [], [], [], []
    for drawn in drawn_rows(kinds, count, draws):
        called = named(defects, drawn, np.setdiff1d(np.arange(len(kinds)), drawn))
        nearest += [kind == name for kind, name, _ in called]
        right += [kind == name for kind, _, name in called]
        other += [name == OTHER for *_, name in called]
        for left_out in names:
            without = drawn[kinds[drawn] != left_out]
            strange += [name == OTHER for *_, name in named(defects, without, np.flatnonzero(kinds == left_out))]
    figures = {"nearest": nearest, "right": right, "other": other, "strange": strange}
    return {
        "kinds": len(names),
        "known": count,
        "images": sum(rest.values()),
        "largest": 100 * max(rest.values()) / sum(rest.values()),
        **{name: 100 * float(np.mean(values)) for name, values in figures.items()},
    }


def drawn_rows(kinds: np.ndarray, count: int, draws: int) -> Iterator[np.ndarray]:
    """Rows of the known defects of every draw: so many of each kind."""
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        yield np.concatenate([rng.permutation(np.flatnonzero(kinds == name))[:count] for name in sorted(set(kinds))])


def named(defects: KnownDefects, known: np.ndarray, rows: np.ndarray) -> list[tuple[str, str, str]]:
    """True kinds of some defects, the nearest ones by others, and those that these name."""
    by = KnownDefects([defects.kinds[row] for row in known], defects.descriptors[known])
    of_rows = [(defects.kinds[row], defects.descriptors[row]) for row in rows]
    return [(kind, by.nearest(descriptor)[0], by.kind_of(descriptor)) for kind, descriptor in of_rows]


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    heads = [
        "product",
        "kinds",
        "known of each",
        "named",
        "largest kind",
        "nearest right",
        "called right",
        "other",
        "left out: other",
    ]
    rows = []
    for name, row in results.items():
        counts = [f"{row[key]}" for key in ("kinds", "known", "images")]
        shares = [f"{row[key]:.0f}" for key in ("largest", "nearest", "right", "other", "strange")]
        rows.append([name, *counts, *shares])
    return markdown(heads, rows)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = data_parser(__doc__)
    parser.add_argument("--train", type=int, default=30, help="normal images of each product of the demo")
    parser.add_argument("--per_kind", type=int, default=10, help="its defects of each kind")
    parser.add_argument("--draws", type=int, default=10)
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()

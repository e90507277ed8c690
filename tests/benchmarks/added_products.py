# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a product is worth that is added to a trained model, by the number of its images.

Each class in turn is left out of the training, and then added with some of its training images, drawn anew each time.
Beside it stands the same class in a model that was trained on all of them, and how typical its unseen images are beside
those of the other classes: what the summary of an addition says of it. A flow that is trained is taken as its training
ends, since the state that would be chosen may be that of the start, which knows no class.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.common.files import write_json
from anomalib_hgad.models.hgad.torch_model import HgadModel
from anomalib_hgad.products.images import product_images
from tests.benchmarks.image_sets import BATCH, Images, encode
from tests.benchmarks.markdown import markdown
from tests.benchmarks.results_model import data_parser
from tests.helpers.engines import engine

COUNTS = (1, 3, 5, 10, 20, 0)
"""Numbers of images; 0 takes all."""


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All classes, numbers of images and draws."""
    results: dict[str, Any] = {}
    names = arguments.categories or sorted(path.name for path in arguments.data.iterdir() if path.is_dir())
    with TemporaryDirectory() as folder:
        joint = trained(arguments, names, Path(folder))
        for name in names:
            rest = trained(arguments, [other for other in names if other != name], Path(folder))
            results[name] = of_class(arguments, name, joint, rest, Path(folder))
            print(f"{table(results)}\n\n{typicalities(results)}", flush=True)
            if arguments.json:
                write_json(results, arguments.json)
    return results


def trained(arguments: argparse.Namespace, names: list[str], folder: Path) -> Hgad:
    """A model of some classes."""
    end = {} if arguments.flow == "linear" else {"calibration_share": None}
    model = Hgad(
        backbone_weights=arguments.weights, image_size=arguments.image_size, seed=0, flow=arguments.flow, **end
    )
    engine(folder, max_epochs=arguments.epochs).fit(model, datamodule=data(arguments.data, names))
    return model.eval()


def data(root: Path, names: list[str]) -> MultiClass:
    """Images of some classes."""
    return MultiClass(root=root, categories=names, train_batch_size=BATCH, eval_batch_size=BATCH, num_workers=0)


def of_class(arguments: argparse.Namespace, name: str, joint: Hgad, rest: Hgad, folder: Path) -> dict[str, Any]:
    """Figures of a class, in a model of all classes and added to one of the others."""
    resize, normalise = joint.pre_processor.transform.transforms
    everything = MultiClass(root=arguments.data, categories=[name], augmentations=resize)
    everything.setup()
    test = encode(joint.model, everything.test_data, normalise)
    figures: dict[str, Any] = {"joint": {"test": judge(joint, name, test)}, "added": []}
    figures["others"] = rest.model.novelty.location.tolist()
    images = everything.train_data.samples["image_path"].to_list()
    for count in arguments.counts:
        for draw in range(arguments.draws if count else 1):
            if count > len(images):
                continue
            drawn = np.random.default_rng([draw, count]).permutation(len(images))[: count or len(images)]
            root = folder / f"{count}-{draw}"
            few = root / name / "train" / "good"
            few.mkdir(parents=True, exist_ok=True)
            for row in drawn:
                (few / Path(images[row]).name).symlink_to(Path(images[row]).resolve())
            model, start = deepcopy(rest), perf_counter()
            (added,) = model.add_classes(product_images({"root": root / name, "train_batch_size": BATCH}, None), "cpu")
            figure: dict[str, Any] = {"images": count or len(images), "all": not count, "draw": draw}
            figure |= {"seconds": perf_counter() - start, "typicality": added.typicality, "taken_for": added.taken_for}
            figure["test"] = judge(model.eval(), name, test)
            figures["added"].append(figure)
            for link in few.iterdir():
                link.unlink()
    return figures


@torch.no_grad()
def judge(module: Hgad, name: str, images: Images) -> dict[str, float | None]:
    """Image and pixel AUROC of a class, its images that are taken for it, and its normal ones that are known.

    In percent, with the class inferred.
    """
    model: HgadModel = module.model
    scores, maps, right, known = [], [], [], []
    for rows in torch.arange(len(images.class_index)).split(BATCH):
        readings = model.read(images.batch(rows)[0])
        inferred = model.class_posterior(readings).argmax(dim=-1)
        levels = model.level_scores(readings, inferred)
        of_images, anomaly_maps = model.raw_scores(levels, inferred, model.image_size)
        of_images, anomaly_maps = model.calibration(of_images, anomaly_maps, inferred)
        scores.append(of_images)
        maps.append(anomaly_maps.squeeze(1))
        right.append(inferred == module.class_names.index(name))
        known.append(model.novelty(levels, inferred) <= 1)
    pixel = None
    masks = [np.zeros(model.image_size, bool) if mask is None else mask for mask in images.masks]
    if all(mask.any() for mask, anomalous in zip(masks, images.anomalous, strict=True) if anomalous):
        pixel = auroc(np.concatenate([mask.ravel() for mask in masks]), torch.cat(maps).numpy().ravel())
    normal = ~images.anomalous
    return {
        "image": auroc(images.anomalous, torch.cat(scores).numpy()),
        "pixel": pixel,
        "right": 100 * float(torch.cat(right).float().mean()),
        "known": 100 * float(torch.cat(known)[torch.from_numpy(normal)].float().mean()),
    }


def auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """In percent."""
    return 100 * float(roc_auc_score(truth, scores))


def table(results: dict[str, Any]) -> str:
    """Markdown: image / pixel AUROC by number of images, mean over the draws, and over the classes."""
    counts = [count for count in COUNTS if any(key(row) == count for row in next(iter(results.values()))["added"])]
    heads = [str(count) if count else "all" for count in counts]
    rows = []
    means: list[list[tuple[float | None, float | None]]] = [[] for _ in range(len(counts) + 1)]
    for name, result in results.items():
        columns = [[row["test"] for row in result["added"] if key(row) == count] for count in counts]
        columns.append([result["joint"]["test"]])
        cells = []
        for column, of_column in zip(columns, means, strict=True):
            pair = (mean([row["image"] for row in column]), mean([row["pixel"] for row in column]))
            of_column.append(pair)
            cells.append(cell(*pair))
        rows.append([name, *cells])
    cells = [cell(mean([pair[0] for pair in column]), mean([pair[1] for pair in column])) for column in means]
    return markdown(["class", *heads, "trained together"], [*rows, ["mean", *cells]])


def typicalities(results: dict[str, Any]) -> str:
    """Markdown: how typical unseen images of a class are that has all of its images, beside the other classes.

    In nats per dimension; and what the class loses against training together, in points of AUROC.
    """
    rows = []
    for name, result in results.items():
        for row in (row for row in result["added"] if row["all"]):
            loss = (
                None if row["test"][kind] is None else result["joint"]["test"][kind] - row["test"][kind]
                for kind in ("image", "pixel")
            )
            others = f"{min(result['others']):.2f} to {max(result['others']):.2f}"
            taken = sum(row["taken_for"].values())
            rows.append([name, f"{row['typicality']:.2f}", others, f"{taken} of {row['images']}", cell(*loss)])
    return markdown(["class", "typicality", "other classes", "taken for another", "loss"], rows)


def key(row: dict[str, Any]) -> int:
    """Number of images as in :data:`COUNTS`."""
    return 0 if row["all"] else row["images"]


def mean(values: list[float | None]) -> float | None:
    """Mean of those that there are."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def cell(image: float | None, pixel: float | None) -> str:
    """Image / pixel."""
    return " / ".join("–" if value is None else f"{value:.1f}" for value in (image, pixel))


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = data_parser(__doc__)
    parser.add_argument("--categories", nargs="+", help="classes; all by default")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of images, 0 for all")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--flow", default="linear", help="family of the flows; linear trains nothing")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of a flow that is trained")
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()

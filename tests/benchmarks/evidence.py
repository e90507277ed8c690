# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What it costs not to know the class, and what a threshold from normal images alone keeps.

``look_alikes``: one class is split at random into two labels. Nobody can tell them apart, so that the class cannot be
inferred; figures with the class given and inferred stand side by side.

``threshold``: the model sees no defect before the test. The threshold comes from a fifth of each class's training
images, which are held out for it; the false-positive rate is that of the normal test images, which nothing has seen.

``unknown``: each class in turn is left out of the training. Its normal images are told from the normal test images of
the known classes by their novelty, and neither is a defect.

``unlabelled``: the folders' names are not used. Classes are clusters of the images, in a number that is found, or come
from three reference images of each. How well they agree with the folders, and the figures of a training with clusters.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataset
from anomalib.engine import Engine
from sklearn.metrics import adjusted_rand_score, roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[2]))

from anomalib_hgad import MultiClass, NormalPostProcessor
from anomalib_hgad.common.files import write_json
from anomalib_hgad.evaluation.predictions import Prediction, read_predictions
from anomalib_hgad.evaluation.threshold import normal_threshold
from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT
from tests.benchmarks.results_model import results_model, results_parser

RATES = (0.05, 0.1, 0.2)
REFERENCES = 3


def train_and_test(arguments: argparse.Namespace, root: Path, folder: Path, **changes: Any) -> Engine:
    """One training with the setting of docs/results.md, and its test."""
    data = changes.pop("data", {})
    module = results_model(arguments, lr=1e-3, seed=arguments.seed, visualizer=False, **changes)
    datamodule = MultiClass(root=root, train_batch_size=8, eval_batch_size=8, num_workers=0, **data)
    engine = Engine(
        max_epochs=arguments.epochs,
        check_val_every_n_epoch=arguments.epochs,
        default_root_dir=folder,
        devices=1,
        logger=False,
        enable_progress_bar=False,
    )
    engine.fit(module, datamodule=datamodule)
    engine.test(module, datamodule=datamodule)
    return engine


def look_alikes(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Image and pixel AUROC, class given and inferred, of each label and their mean."""
    root = split_at_random(arguments.data, arguments.split, folder / "data", arguments.seed)
    engine = train_and_test(arguments, root, folder)
    results = json.loads((Path(engine.trainer.default_root_dir) / "results.json").read_text())
    names = {
        f"{source}, {level}": f"class_{source}_{level}_AUROC"
        for level in ("image", "pixel")
        for source in ("given", "inferred")
    }
    rows = results["classes"] | {"mean": results["mean"]}
    return {
        "split": arguments.split,
        "AUROC": {row: {name: figures[key] for name, key in names.items()} for row, figures in rows.items()},
        "class right": {row: figures["ClassAccuracy"] for row, figures in rows.items()},
    }


def split_at_random(data: Path, split: str, root: Path, seed: int) -> Path:
    """Link all classes into another folder, one of them as two halves, each image of it in one of them."""
    rng = np.random.default_rng(seed)
    for class_folder in sorted(path for path in data.iterdir() if path.is_dir()):
        for path in sorted(path for path in class_folder.rglob("*") if path.is_file()):
            relative = path.relative_to(class_folder)
            if relative.parts[0] == "ground_truth":
                continue
            half = f"_{'ab'[rng.integers(2)]}" if class_folder.name == split else ""
            links = {root / f"{class_folder.name}{half}" / relative: path}
            mask = class_folder / "ground_truth" / relative.parent.name / f"{path.stem}_mask.png"
            if relative.parts[0] == "test" and mask.is_file():
                links[root / f"{class_folder.name}{half}" / mask.relative_to(class_folder)] = mask
            for link, target in links.items():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target.resolve())
    return root


def threshold(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """False-positive rates asked for and found, and the share of anomalies that are found at them."""
    engine = train_and_test(
        arguments,
        arguments.data,
        folder,
        post_processor=NormalPostProcessor(RATES[0]),
        data={"val_split_mode": "from_train", "val_split_ratio": 0.2},
    )
    tested = read_predictions(Path(engine.trainer.default_root_dir))
    scores = validation_scores(engine)
    rates = {}
    for rate in RATES:
        limit = float(normal_threshold(scores, rate))
        rates[str(rate)] = {"threshold": limit} | {
            kind: {name: share_above(rows, limit) for name, rows in by_class(tested, anomalous=anomalous).items()}
            for kind, anomalous in (("false positives", False), ("anomalies found", True))
        }
    return {
        "validation images": len(scores),
        "normal test images": sum(not row.gt_label for row in tested),
        "rates": rates,
    }


@torch.no_grad()
def validation_scores(engine: Engine) -> torch.Tensor:
    """Raw scores of the normal images that were held out for the threshold."""
    module = engine.model.eval()
    loader = engine.trainer.datamodule.val_dataloader()
    return torch.cat([module.model.predict(module.pre_processor(batch.image))[0].pred_score for batch in loader])


def unknown(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """AUROC of the novelty, and the shares of images that are called unknown, with each class left out in turn."""
    names = MultiClass(root=arguments.data).class_names
    results = {}
    for left_out in names:
        known = [name for name in names if name != left_out]
        engine = train_and_test(arguments, arguments.data, folder / left_out, data={"categories": known})
        tested = read_predictions(Path(engine.trainer.default_root_dir))
        others = MultiClass(root=arguments.data, categories=[left_out], num_workers=0)
        others.setup()
        seen = {
            "known, normal": [row.novelty for row in tested if not row.gt_label],
            "known, anomalous": [row.novelty for row in tested if row.gt_label],
            "unknown, normal": novelties(engine, others.train_data),
        }
        truth = np.repeat([0, 1], [len(seen["known, normal"]), len(seen["unknown, normal"])])
        results[left_out] = {
            "AUROC": float(roc_auc_score(truth, seen["known, normal"] + seen["unknown, normal"])),
            "called unknown": {name: float(np.mean(np.array(values) > NOVELTY_LIMIT)) for name, values in seen.items()},
            "novelty": {name: np.quantile(values, [0, 0.5, 1]).tolist() for name, values in seen.items()},
        }
    return results


def unlabelled(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Agreement of found classes with the folders, and image AUROC by folder of a model that was trained with them."""
    references = folder / "references"
    for class_folder in sorted(path for path in arguments.data.iterdir() if path.is_dir()):
        for path in sorted((class_folder / "train/good").iterdir())[:REFERENCES]:
            link = references / class_folder.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    data = {"labels": "references", "references": references, "label_weights": arguments.weights}
    labelled = MultiClass(root=arguments.data, num_workers=0, **data)
    labelled.setup()
    data = {"labels": "cluster", "label_weights": arguments.weights}
    engine = train_and_test(arguments, arguments.data, folder, data=data)
    found = engine.trainer.datamodule
    tested = read_predictions(Path(engine.trainer.default_root_dir))
    aurocs = {}
    for name in sorted({folder_of(row.image_path, arguments.data) for row in tested}):
        of_folder = [row for row in tested if folder_of(row.image_path, arguments.data) == name]
        truth, scores = [bool(row.gt_label) for row in of_folder], [row.raw_score for row in of_folder]
        aurocs[name] = float(roc_auc_score(truth, scores))
    return {
        "references right": float(
            np.mean(labelled.test_data.samples["class_name"] == folders(labelled, arguments.data))
        ),
        "clusters": len(found.class_names),
        "adjusted Rand index": adjusted_rand_score(
            folders(found, arguments.data), found.test_data.samples["class_index"]
        ),
        "image AUROC": aurocs | {"mean": float(np.mean(list(aurocs.values())))},
    }


def folders(datamodule: MultiClass, root: Path) -> list[str]:
    """Folder of every test image."""
    return [folder_of(path, root) for path in datamodule.test_data.samples["image_path"]]


def folder_of(path: str, root: Path) -> str:
    """Name of the subfolder that an image is in."""
    return Path(path).resolve().relative_to(root.resolve()).parts[0]


@torch.no_grad()
def novelties(engine: Engine, dataset: AnomalibDataset) -> list[float]:
    """Novelty of all images of a set."""
    module = engine.model.eval()
    images = (dataset[index].image.unsqueeze(0) for index in range(len(dataset)))
    return [module.model.predict(module.pre_processor(image))[0].novelty.item() for image in images]


def by_class(rows: list[Prediction], *, anomalous: bool) -> dict[str, list[Prediction]]:
    """Images of one kind by class, and all of them."""
    of_kind = [row for row in rows if row.gt_label == anomalous]
    names = sorted({str(row.class_name) for row in of_kind})
    return {name: [row for row in of_kind if row.class_name == name] for name in names} | {"all": of_kind}


def share_above(rows: list[Prediction], limit: float) -> float:
    """Share of images whose raw score is above a threshold."""
    return sum(row.raw_score > limit for row in rows if row.raw_score is not None) / len(rows)


PARTS = {"look_alikes": look_alikes, "threshold": threshold, "unknown": unknown, "unlabelled": unlabelled}


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = results_parser(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="other parts in the file are kept"
    )
    parser.add_argument("--split", default="aws_cookie", help="class that is split at random into two labels")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(command)
    results = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else {}
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = PARTS[name](arguments, Path(folder))
        print(name, json.dumps(results[name], indent=1))
        if arguments.json:
            write_json(results, arguments.json)


if __name__ == "__main__":
    main()

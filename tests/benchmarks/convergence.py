# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""How fast variants of the training converge, judged by normal images that were not trained on.

A fifth of each class's normal training images is held out. The criterion is their log-likelihood under their own class,
in nats per dimension, mean over levels and classes: no label of a test image has a part in it. AUROC, by the paper's
score, is reported beside it. All variants train the same model with the package's own losses, optimiser and course,
from features computed once.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from anomalib_hgad import Hgad
from anomalib_hgad.common.files import write_json
from anomalib_hgad.models.hgad.flows import ConditionalFlow
from anomalib_hgad.models.hgad.flows.coupling import couple, coupling_weights
from anomalib_hgad.models.hgad.flows.position import position_code
from anomalib_hgad.models.hgad.loss import total_loss
from anomalib_hgad.models.hgad.moments import sum_up
from anomalib_hgad.models.hgad.torch_model import HgadModel
from anomalib_hgad.models.schedule import TrainingCourse, make_optimizer
from tests.benchmarks.image_sets import BATCH, Images, aurocs, encode, split_data
from tests.benchmarks.markdown import markdown
from tests.benchmarks.measure import mean_and_deviation
from tests.benchmarks.results_model import results_model, results_parser

logger = logging.getLogger(__name__)


@dataclass
class Variant:
    """What is varied.

    Attributes:
        epochs: Passes over the training images.
        features: What the flow's first layer does with the features: ``"literal"``, ``"standardised"``, ``"whitened"``.
        block_scaling: Set every block's global scale and offset so that its outputs of the training images have mean 0
            and variance 1 at the start.
        positions: Share of the positions that a step takes, drawn anew.
        lr: Learning rate.
        prior_lr: That of the mixture, relative to it.
    """

    epochs: int = 12
    features: str = "whitened"
    block_scaling: bool = False
    positions: float = 1.0
    lr: float = 1e-3
    prior_lr: float = 1.0


VARIANTS = {
    "literal": Variant(features="literal"),
    "standardised": Variant(features="standardised"),
    "whitened": Variant(),
    "literal_scaled": Variant(features="literal", block_scaling=True),
    "whitened_scaled": Variant(block_scaling=True),
    "quarter": Variant(positions=0.25),
    "quarter_24": Variant(positions=0.25, epochs=24),
    "whitened_lr_2e-3": Variant(lr=2e-3),
    "whitened_lr_5e-4": Variant(lr=5e-4),
    "whitened_prior_lr_10": Variant(prior_lr=10.0),
    "whitened_15": Variant(epochs=15),
    "literal_60": Variant(epochs=60, features="literal"),
}


def prepare_flows(model: HgadModel, train: Images, variant: Variant) -> None:
    """Constants and starting values that come from the training images."""
    if variant.features != "literal":
        flows, one_class = model.feature_flows, torch.zeros_like(train.class_index)
        vectors = [flow.vectors(level) for flow, level in zip(flows, train.features, strict=True)]
        moments = sum_up([(vectors, one_class)], 1, [flow.feature_dim for flow in flows], torch.device("cpu"))
        statistics_of_levels = [level.pooled() for level in moments]
        if variant.features == "standardised":
            statistics_of_levels = [(mean, cov.diagonal().diag()) for mean, cov in statistics_of_levels]
        model.set_whitening(statistics_of_levels)
    if variant.block_scaling:
        for flow, features in zip(model.flows, train.features, strict=True):
            scale_blocks(flow, features)


@torch.no_grad()
def scale_blocks(flow: ConditionalFlow, features: torch.Tensor) -> None:
    """Data-dependent start of the global scales and offsets, block after block."""
    code = position_code(flow.condition_dim, *features.shape[2:], like=features)
    rows = flow.whiten(flow.vectors(features))
    for block in flow.blocks.module_list:
        weights = coupling_weights(block, code)
        unmixed = weights._replace(mixing=torch.eye(rows.shape[-1]), mixing_bias=torch.zeros(rows.shape[-1]))
        outputs = couple(rows, [unmixed], block.clamp)[0].flatten(0, 1)
        scale = 1 / outputs.std(dim=0).clamp(min=1e-2)
        # The inverse of 0.1 softplus with beta 0.5, 2 log(exp(5 s) - 1), without overflow.
        block.global_scale.copy_(10 * scale + 2 * (-torch.expm1(-5 * scale)).log())
        block.global_offset.copy_(-outputs.mean(dim=0) * scale)
        rows = couple(rows, [coupling_weights(block, code)], block.clamp)[0]


def train_model(module: Hgad, train: Images, variant: Variant) -> float:
    """Train as the package does; give the seconds per epoch."""
    model = module.model
    prepare_flows(model, train, variant)
    batches = -(-len(train.class_index) // BATCH)
    steps = variant.epochs * batches
    settings = module.training_arguments
    course = TrainingCourse(steps, settings["warmup"], settings["first_stage"])
    optimizer = make_optimizer(
        model.flows.parameters(), model.priors.parameters(), variant.lr, settings["weight_decay"]
    )
    optimizer.param_groups[-1]["lr"] *= variant.prior_lr
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, course.learning_rate_factor)
    order: list[torch.Tensor] = []
    start = time.perf_counter()
    for step in range(steps):
        order = order or list(torch.randperm(len(train.class_index)).split(BATCH))
        features, classes = train.batch(order.pop())
        generator = torch.Generator().manual_seed(step)
        losses = model.losses(features, classes, settings["label_smoothing"], variant.positions, generator)
        optimizer.zero_grad()
        total_loss(losses, module.loss_weights, course.stage(step)).backward()
        optimizer.step()
        scheduler.step()
    return (time.perf_counter() - start) / variant.epochs


def log_likelihood(model: HgadModel, normal: Images) -> float:
    """Criterion: held-out log-likelihood in nats per dimension, mean over the classes and levels."""
    of_classes = []
    for index in normal.class_index.unique():
        features, classes = normal.batch((normal.class_index == index).nonzero().flatten())
        levels = model.level_scores(model.read(features), classes)
        of_classes.append(torch.stack([level.log_likelihood.mean() for level in levels]).mean())
    return torch.stack(of_classes).mean().item()


def run(arguments: argparse.Namespace) -> dict[str, dict[str, object]]:
    """All variants with all seeds."""
    size = (arguments.image_size, arguments.image_size)

    def new_module(seed: int) -> Hgad:
        module = results_model(arguments, seed=seed, score="product")
        module.model.set_num_classes(len(datamodule.class_names))
        return module

    datamodule, held_out, normalise = split_data(arguments.data, size)
    encoder = new_module(0).model
    sets = [encode(encoder, data, normalise) for data in (datamodule.train_data, held_out, datamodule.test_data)]
    train, normal, test = sets
    results = {}
    for name in arguments.variants:
        runs = []
        for seed in arguments.seeds:
            module = new_module(seed)
            seconds = train_model(module, train, VARIANTS[name])
            module.model.eval()
            of_images, of_pixels = zip(*aurocs(module.model, train, test, size), strict=True)
            runs.append(
                {
                    "seed": seed,
                    "held_out_log_likelihood": log_likelihood(module.model, normal),
                    "image_AUROC": statistics.mean(of_images),
                    "pixel_AUROC": statistics.mean(auroc for auroc in of_pixels if auroc is not None),
                    "seconds_per_epoch": seconds,
                }
            )
            logger.info("%s %s", name, runs[-1])
        results[name] = {"settings": asdict(VARIANTS[name]), "runs": runs}
        if arguments.json:
            write_json(results, arguments.json)
    return results


def table(results: dict[str, dict[str, object]]) -> str:
    """Markdown."""
    columns = ("held_out_log_likelihood", "image_AUROC", "pixel_AUROC", "seconds_per_epoch")
    rows = []
    for name, result in results.items():
        cells = []
        for column, digits in zip(columns, (3, 1, 1, 1), strict=True):
            cells.append(mean_and_deviation([a_run[column] for a_run in result["runs"]], digits))
        rows.append([name, result["settings"]["epochs"], *cells])
    heads = ["variant", "epochs", "held-out log-likelihood", "image AUROC", "pixel AUROC", "s / epoch"]
    return markdown(heads, rows)


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = results_parser(__doc__)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(table(run(parser.parse_args(command))))


if __name__ == "__main__":
    main()

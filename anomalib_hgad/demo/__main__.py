# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Train and test one model on five products: ``python -m anomalib_hgad.demo``. Nothing is downloaded."""

import argparse
from pathlib import Path

from anomalib.engine import Engine
from lightning.pytorch import seed_everything

from anomalib_hgad.data.multi_class import MultiClass
from anomalib_hgad.demo.backbone import BACKBONE, LAYERS, WEIGHTS
from anomalib_hgad.demo.images import write_demo_dataset
from anomalib_hgad.models.hgad.lightning_model import Hgad


def main(arguments: list[str] | None = None) -> Engine:
    """Draw the images, train and test.

    Args:
        arguments: Those of the command line.

    Returns:
        The engine that ran.
    """
    parser = argparse.ArgumentParser(prog="python -m anomalib_hgad.demo", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("datasets/hgad_demo"), help="folder for the images")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for the results")
    settings = parser.parse_args(arguments)

    seed_everything(0, workers=True)
    root = write_demo_dataset(settings.data)
    engine = Engine(default_root_dir=settings.results, enable_model_summary=False)
    model = Hgad(backbone=BACKBONE, backbone_weights=WEIGHTS, levels={layer: [1.0] for layer in LAYERS})
    engine.train(model, datamodule=MultiClass(root=root, train_batch_size=16, eval_batch_size=16, num_workers=0))
    return engine


if __name__ == "__main__":
    main()

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the latent vectors that the report shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from anomalib_hgad.report import examples
from anomalib_hgad.report.latents import Sample, project, sample_latents
from anomalib_hgad.report.run_files import read_run


def test_latents_of_a_sample(run: Path) -> None:
    """Log-likelihoods against the model's own forward flow and density, of one image."""
    files = read_run(run)
    sample = sample_latents(files)
    assert len(sample.predictions) == len(sample.latents) == 12
    model = files.model
    row = sample.predictions[0]
    image = torch.from_numpy(np.array(examples.Image.open(row.image_path))).permute(2, 0, 1)[None] / 255
    features = model.model.encoder(model.pre_processor(image))
    latents = model.model.flows[0](features[0])
    assert torch.allclose(torch.from_numpy(sample.latents[0]), latents.z[0].mean(dim=0), atol=1e-5)
    assert torch.equal(torch.from_numpy(sample.centers), model.model.priors[0].class_centers)
    positions = features[0].shape[2] * features[0].shape[3]
    assert len(sample.normal) == 6 * positions
    # Positions are 8 x 8 pixels; of the 8 x 8 from (2, 2) the first covers 6 x 6, more than half, the next ones less.
    # Two classes have masks, two images each.
    assert len(sample.anomalous) == 2 * 2


def test_projection_keeps_the_two_directions_that_matter() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(20, 2)) @ np.array([[3.0, 0, 0, 0], [0, 2.0, 0, 0]])
    positions, centers = project(Sample([], plane[:17], plane[17:], np.empty(0), np.empty(0)))
    together = np.concatenate([positions, centers])
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    assert np.allclose(np.linalg.norm(together[:, None] - together[None], axis=-1), distances)

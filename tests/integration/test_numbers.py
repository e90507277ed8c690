# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Data and numbers at the edge: losses, gradients and scores stay finite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.evaluation.threshold import normal_threshold
from anomalib_hgad.models.hgad.anomaly_map import (
    AnomalyMapGenerator,
    LevelScores,
    ScoreKind,
    class_contrast,
    class_posterior,
    image_score,
)
from anomalib_hgad.models.hgad.calibration import ScoreCalibration, location_and_spread
from anomalib_hgad.models.hgad.flows import FAMILIES, ConditionalFlow
from anomalib_hgad.models.hgad.loss import hgad_losses, negative_entropy, total_loss
from anomalib_hgad.models.hgad.moments import sum_up
from anomalib_hgad.models.hgad.normal_scores import ClassValues, ImageScores, PositionScores
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_FLOW_ARGUMENTS, LIGHT_UNIAD
from tests.stress.long_training import WEIGHTS, train

pytestmark = pytest.mark.usefixtures("seeded")

FAR = 1415.0
"""Distance at which the log-density of a unit Gaussian is about -1e6."""

families = pytest.mark.parametrize("kind", FAMILIES)
in_both_precisions = pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])


def assert_finite(tensors: Iterable[torch.Tensor]) -> None:
    for tensor in tensors:
        assert tensor.isfinite().all(), tensor


def assert_finite_losses(prior: HierarchicalGaussianMixture, z: torch.Tensor, log_det: torch.Tensor) -> None:
    """Of images of the classes in turn; and the gradients of all that they depend on."""
    z, log_det = z.detach().requires_grad_(), log_det.detach().requires_grad_()
    losses = hgad_losses(prior, z, log_det, torch.arange(len(z)) % len(prior.class_centers))
    assert_finite(losses)
    total_loss(losses, WEIGHTS, stage=2).backward()
    assert_finite(tensor.grad for tensor in (z, log_det, *prior.parameters()) if tensor.grad is not None)


@families
@in_both_precisions
def test_a_cut_of_the_long_training(kind: str, half: bool) -> None:
    """The whole is a command, see its file."""
    assert np.isfinite(train(kind, steps=40, half=half))


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4])
@families
def test_features_that_never_vary(kind: str, value: float) -> None:
    """All directions have zero variance; strange features are far away then, but finite."""
    flow = FAMILIES[kind](4, **LIGHT_FLOW_ARGUMENTS[kind])
    same = torch.full((3, 4, 1, 2), value)
    (moments,) = sum_up([([flow.vectors(same)], torch.zeros(3, dtype=torch.int64))] * 2, 1, [4], torch.device("cpu"))
    flow.set_whitening(*moments.pooled())
    for features in (same, same + torch.randn_like(same)):
        latents = flow(features)
        assert_finite((latents.z, latents.log_det))
        if flow.trained:
            (latents.z.square().mean() - latents.log_det.mean()).backward()
        assert_finite(parameter.grad for parameter in flow.parameters() if parameter.grad is not None)
        assert_finite_losses(HierarchicalGaussianMixture(2, 2, 4), latents.z, latents.log_det)


@pytest.mark.parametrize("covariance", [np.diag([1e12, 0, 0]), np.diag([1e-30, 0, 0]), -1e-9 * np.eye(3)])
def test_whitening_of_any_scale(covariance: np.ndarray) -> None:
    """Rounding makes small negative variances."""
    flow = ConditionalFlow(3, coupling_blocks=1, condition_dim=4)
    flow.set_whitening(torch.zeros(3), torch.from_numpy(covariance))
    assert_finite((flow.whitening, flow.whitening_log_det, flow.whitening_bias))


@pytest.mark.parametrize("centers", [1, 3])
@pytest.mark.parametrize("at_centers", [False, True])
def test_centers_that_coincide(centers: int, at_centers: bool) -> None:
    """All centres of all classes are one point, and the latents may be there too."""
    prior = HierarchicalGaussianMixture(3, centers, 4)
    torch.nn.init.ones_(prior.class_centers)
    torch.nn.init.zeros_(prior.center_offsets)
    z = torch.ones(3, 5, 4) if at_centers else torch.randn(3, 5, 4)
    assert_finite_losses(prior, z, torch.zeros(3, 5))
    assert negative_entropy(prior.class_energies(z)).detach().numpy() == pytest.approx(-np.log(3), abs=1e-6)


@in_both_precisions
def test_log_densities_of_minus_a_million(half: bool) -> None:
    prior = HierarchicalGaussianMixture(3, 2, 4)
    z = torch.randn(3, 5, 4) + FAR / 2  # half of the distance on each of four channels
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert prior.intra_class_log_density(z, torch.zeros(3, 1, dtype=torch.int64)).max() < -0.9e6
        assert_finite_losses(prior, z, torch.zeros(3, 5))
        assert_finite_losses(prior, z, torch.full((3, 5), -1e6))


CPU = torch.device("cpu")


def scores(likelihood: float, images: int, entropy: float = -1e6) -> list[LevelScores]:
    """A level of identical images."""
    values = torch.full((images, 4), likelihood)
    return [LevelScores(values, -values, torch.full((images, 4), entropy), (2, 2))]


@pytest.mark.parametrize("score", ["sum", "contrast"])
@pytest.mark.parametrize("likelihood", [-1e6, 0.0, 1e6])
@pytest.mark.parametrize("of_normal", [-1e6, 0.0, 1e6])
def test_scores_of_log_likelihoods_of_a_million(of_normal: float, likelihood: float, score: ScoreKind) -> None:
    """Of images that are all alike in a class, or the only one of it, or with no image of the class at all."""
    normal, nothing = PositionScores(3, 1, CPU), PositionScores(3, 1, CPU)
    normal.add(scores(of_normal, images=3), torch.zeros(3, dtype=torch.int64))
    normal.add(scores(of_normal, images=1), torch.ones(1, dtype=torch.int64))
    generator = AnomalyMapGenerator(score, (8, 8))
    calibration, novelty = ScoreCalibration(3, 1), NoveltyScale(3)
    for unseen in (normal, nothing, nothing.or_else(normal)):
        calibration.set_positions(normal, unseen)
        novelty.update(unseen.typicality)
        images, pixels = ImageScores(3), ClassValues(3, CPU)
        for of_class, count in ((0, 3), (1, 1)):
            y = torch.full((count,), of_class)
            maps = generator(scores(of_normal, count), calibration.constants(y), (8, 8))
            images.add(image_score(maps, 0.02), y)
            pixels.add(maps, y)
        calibration.set_scale(images.of_classes(), pixels, torch.tensor([of_normal, torch.nan, torch.nan]))
        assert_finite([*calibration.state_dict().values(), *novelty.state_dict().values()])
        assert all((values > 0).all() for values in (calibration.spread, calibration.pixel_spread))
        of_image, classes = scores(likelihood, images=3), torch.arange(3)
        raw = generator(of_image, calibration.constants(classes), (8, 8))
        assert_finite((raw, *calibration(image_score(raw, 0.0), raw, classes), novelty(of_image, classes)))


def test_contrast_of_log_likelihoods_of_a_million() -> None:
    values = torch.tensor([-1e6, 0.0, 1e6])
    others = torch.cartesian_prod(values, values)
    contrast = class_contrast(values.view(1, 3, 1).expand(1, 3, 9).flatten(1), others.repeat(3, 1).unsqueeze(0))
    assert_finite([contrast])
    expected = values.repeat_interleave(9) - others.amax(dim=-1).repeat(3)
    torch.testing.assert_close(contrast[0], expected, rtol=0, atol=1)  # two alike are ln 2 more; float32


def test_posterior_of_logits_of_a_million() -> None:
    posterior = class_posterior([torch.tensor([[-1e6, -2e6, -1e6], [1e9, -1e9, 0.0]])] * 2)
    torch.testing.assert_close(posterior, torch.tensor([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-6, 1e6])
def test_scale_of_scores_that_are_all_equal(value: float) -> None:
    """The spread stays far enough from 0 to divide by."""
    location, spread = location_and_spread([torch.full((count,), value).double() for count in (5, 1, 0)])
    assert_finite((location, spread, 1 / spread, 1e6 / spread))
    assert normal_threshold(torch.full((5,), value), 0.05) == torch.tensor(value)


def write_constant(folder: Path, grey: int) -> None:
    """A class of one picture of one colour, however often; the anomalous one has another colour."""
    for path, value in {
        **{f"train/good/{number}.png": grey for number in range(6)},
        **{f"test/good/{number}.png": grey for number in range(2)},
        "test/stain/0.png": 255 - grey,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (value,) * 3).save(folder / path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), [(Hgad, LIGHT), (UniAd, LIGHT_UNIAD)], ids=["Hgad", "UniAd"])
def test_constant_images_from_training_to_scores(
    kind: type[Hgad | UniAd], settings: dict[str, object], tmp_path: Path
) -> None:
    """Identical images of one colour in each class, one class black."""
    for name, grey in (("black", 0), ("grey", 100)):
        write_constant(tmp_path / "data" / name, grey)
    run = engine(tmp_path / "results", max_epochs=2)
    datamodule = MultiClass(root=tmp_path / "data", train_batch_size=4, num_workers=0)
    model = kind(**settings, seed=0, visualizer=False)
    run.fit(model, datamodule=datamodule)
    assert np.isfinite(run.trainer.callback_metrics["train_loss_epoch"])
    assert_finite(model.model.state_dict().values())
    for batch in run.predict(model, datamodule=datamodule):
        assert_finite((batch.pred_score, batch.anomaly_map))
        if kind is Hgad:
            assert_finite((batch.class_inferred_score, batch.class_given_score, batch.novelty))

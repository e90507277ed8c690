# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Constants of a product that is added, against NumPy on the features of its images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image
from PIL import Image

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.models.hgad import fit_added
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT

RIDGE = 0.03


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three products, each darker than the one before; the last one has three images."""
    root = tmp_path_factory.mktemp("added") / "plant"
    for brightness, name in ((2, "bolt"), (3, "nut"), (4, "washer")):
        trees.mvtec_class(root / name, train=3 if name == "washer" else 8, good=3, bad=3)
        for file in (root / name).glob("t*/*/*.png"):
            Image.fromarray(np.array(Image.open(file)) * 2 // brightness).save(file)
    return root


def data(root: Path, *names: str) -> MultiClass:
    return MultiClass(root=root, categories=list(names), train_batch_size=2, eval_batch_size=4, num_workers=0)


@pytest.fixture(scope="module")
def trained(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a model of the first two."""
    settings = {"flow": "linear", "flow_arguments": None, "covariance": "full", "score": "contrast"}
    model = Hgad(**LIGHT | settings | {"levels": {"layer1": [1.0]}, "seed": 0, "calibration_share": 0.2})
    run = engine(tmp_path_factory.mktemp("run"))
    run.fit(model, datamodule=data(plant, "bolt", "nut"))
    return Path(run.best_model_path)


def latents(model: Hgad, files: list[Path]) -> np.ndarray:
    """Latents of images, shape (images, positions, D)."""
    images = torch.stack([read_image(file, as_tensor=True) for file in files])
    with torch.no_grad():
        z = model.model.flows[0](model.model.encoder(model.pre_processor.transform(images))[0]).z
    return z.double().numpy()


def gaussian(rows: np.ndarray, images: int, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance that is drawn towards a common one, with its ridge."""
    covariance = (images * np.cov(rows.T, bias=True) + shared) / (images + 1)
    return rows.mean(axis=0), covariance + RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))


def log_density(rows: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Of a Gaussian, in nats."""
    distances = np.einsum("nd,de,ne->n", rows - mean, np.linalg.inv(covariance), rows - mean)
    return -0.5 * (distances + np.linalg.slogdet(2 * np.pi * covariance)[1])


@pytest.mark.slow
def test_gaussian_and_typicality_are_those_of_numpy(trained: Path, plant: Path) -> None:
    """Three images are three parts: each is scored by the Gaussian of the other two."""
    model = Hgad.load_from_checkpoint(trained).eval()
    (prior,) = model.model.priors
    factor = np.linalg.inv(prior.shared_whitening.double().numpy())
    shared = factor @ factor.T
    z = latents(model, sorted((plant / "washer/train/good").iterdir()))
    (added,) = model.add_classes(data(plant, "washer"), "cpu")
    mean, covariance = gaussian(z.reshape(-1, z.shape[-1]), 3, shared)
    np.testing.assert_allclose(prior.class_centers[2].detach().numpy(), mean, atol=1e-4)
    np.testing.assert_allclose(prior.covariances()[2].numpy(), covariance, rtol=2e-3, atol=2e-3)
    log_det, dim = float(model.model.flows[0].whitening_log_det), z.shape[-1]
    medians, values = [], []
    for row in range(3):
        others = np.delete(z, row, axis=0).reshape(-1, dim)
        of_image = (log_density(z[row], *gaussian(others, 2, shared)) + log_det) / dim
        medians.append(np.sort(of_image)[(len(of_image) - 1) // 2])
        values.append(of_image)
    assert (added.name, added.images, added.taken_for) == ("washer", 3, {})
    assert added.typicality == pytest.approx(np.mean(medians), abs=1e-3)
    assert model.model.novelty.location[2].item() == pytest.approx(np.mean(medians), abs=1e-3)
    assert model.model.novelty.images[2].item() == 3
    assert model.model.calibration.mean[2, 0, 0].item() == pytest.approx(np.mean(values), abs=1e-3)
    assert model.model.calibration.deviation[2, 0, 0].item() == pytest.approx(np.std(values), rel=1e-2)
    assert model.labels.records["washer"].images == 3


@pytest.mark.slow
def test_images_of_a_known_product_are_refused_by_name_and_nothing_changes(
    trained: Path, plant: Path, tmp_path: Path
) -> None:
    for number, file in enumerate(sorted((plant / "washer/train/good").iterdir())):
        place = tmp_path / "plant/rivet/train/good" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    shutil.copy(plant / "nut/train/good/003.png", place.with_name("stray.png"))
    model = Hgad.load_from_checkpoint(trained).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"of rivet only; 1 of them resemble .*stray\.png \(nut\)\. Remove them"):
        model.add_classes(data(tmp_path / "plant", "rivet"), "cpu")
    assert model.class_names == ["bolt", "nut"]
    assert set(model.labels.records) == {"bolt", "nut"}
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.slow
def test_a_single_image_is_enough_to_be_told_from_the_others(trained: Path, plant: Path, tmp_path: Path) -> None:
    place = tmp_path / "plant/washer/train/good/0.png"
    place.parent.mkdir(parents=True)
    shutil.copy(plant / "washer/train/good/000.png", place)
    model = Hgad.load_from_checkpoint(trained).eval()
    model.add_classes(data(tmp_path / "plant", "washer"), "cpu")
    with torch.no_grad():
        images = torch.stack([read_image(file, as_tensor=True) for file in (plant / "washer/test/good").iterdir()])
        prediction, _ = model.model.predict(model.pre_processor.transform(images))
    assert prediction.class_posterior.argmax(dim=1).tolist() == [2] * 3
    assert all(values.isfinite().all() for values in prediction)


def test_images_of_a_class_are_dealt_out_to_its_parts_in_turn() -> None:
    """Seven images of the first class, two of the second, one after another."""
    assert fit_added.parts_of_images([0, 1, 0, 0, 0, 0, 1, 0, 0], [7, 2]) == [0, 5, 1, 2, 3, 4, 6, 0, 1]


def test_one_odd_image_is_told_from_the_others_by_hand() -> None:
    """Median 2.0, median distance from it 0.1: 4 times 1.48 times that below it, unless other classes spread more."""
    typicalities = torch.tensor([1.9, 2.0, 2.1, 2.1, 0.5], dtype=torch.float64)
    assert fit_added.odd_below(typicalities, 0.05) == pytest.approx(2.0 - 4 * 1.48 * 0.1)
    assert fit_added.odd_below(typicalities, 0.2) == pytest.approx(2.0 - 4 * 0.2)
    assert fit_added.odd_below(typicalities[:2], 0.05) == -float("inf")

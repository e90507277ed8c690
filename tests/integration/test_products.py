# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Products that come to a trained model and go from it, by the command line and in Python, on drawn and real images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_hgad import ClassOpenVINOInferencer, Hgad, MultiClass, NormalPostProcessor, cli
from tests.helpers import trees
from tests.helpers.engines import all_figures, engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {"flow": "linear", "flow_arguments": None, "covariance": "full", "score": "contrast"}
FIELDS = ("pred_score", "raw_score", "pred_label", "anomaly_map", "pred_mask", "novelty", "pred_class_index")


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four products, each darker than the one before."""
    root = tmp_path_factory.mktemp("products") / "plant"
    for brightness, name in enumerate(("bolt", "nut", "rivet", "washer"), start=2):
        trees.mvtec_class(root / name, train=8, good=3, bad=3)
        for file in (root / name).glob("t*/*/*.png"):
            Image.fromarray(np.array(Image.open(file)) * 2 // brightness).save(file)
    return root


def data(root: Path, *names: str) -> MultiClass:
    return MultiClass(root=root, categories=list(names) or None, train_batch_size=4, eval_batch_size=4, num_workers=0)


def light(**settings: Any) -> Hgad:
    return Hgad(**LIGHT | SETTINGS | {"backbone": "resnet18", "levels": {"layer1": [1.0]}, "seed": 0} | settings)


@pytest.fixture(scope="module")
def checkpoint(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model of the first three."""
    run = engine(tmp_path_factory.mktemp("run"))
    run.fit(light(), datamodule=data(plant, "bolt", "nut", "rivet"))
    return Path(run.best_model_path)


def predictions(model: Hgad, datamodule: MultiClass, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Fields of all test images."""
    batches = engine(folder).predict(model, datamodule=datamodule, return_predictions=True, **settings)
    return {name: torch.cat([getattr(batch, name) for batch in batches]) for name in FIELDS}


def posteriors(model: Hgad, datamodule: MultiClass) -> torch.Tensor:
    """Probabilities of the classes of the training images, which a setup has prepared."""
    images = torch.stack([item.image for item in datamodule.train_data])
    with torch.no_grad():
        return model.eval().model.predict(model.pre_processor.transform(images))[0].class_posterior


def assert_untouched(model: Hgad, old: MultiClass, new: MultiClass, folder: Path) -> None:
    """All that is said of images of the old products stays, bit for bit, when the new ones are added."""
    before = predictions(model, old, folder)
    probabilities = posteriors(model, old)
    thresholds = model.post_processor.image_threshold.clone(), model.post_processor.pixel_threshold.clone()
    model.add_classes(new, "cpu")
    after = predictions(model, old, folder)
    kept = after["pred_class_index"] < probabilities.shape[1]
    assert kept.float().mean() > 0.95, "few images of an old product go to a new one"
    for name in FIELDS:
        assert torch.equal(after[name][kept], before[name][kept]), name
    assert torch.equal(posteriors(model, old)[:, : probabilities.shape[1]], probabilities)
    assert (model.post_processor.image_threshold, model.post_processor.pixel_threshold) == thresholds


def test_old_products_stay_bit_for_bit(checkpoint: Path, plant: Path, tmp_path: Path) -> None:
    model = Hgad.load_from_checkpoint(checkpoint)
    assert_untouched(model, data(plant, "bolt", "nut", "rivet"), data(plant, "washer"), tmp_path)
    (run := engine(tmp_path)).test(model, datamodule=data(plant))
    metrics = all_figures(run)
    assert metrics["image_AUROC_washer"] > 0.9
    assert metrics["ClassAccuracy_washer"] == 1


@pytest.mark.nightly
def test_old_products_stay_bit_for_bit_on_real_images(few_shared: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (few_shared / "data").iterdir())
    weights = few_shared / "weights/resnet18_timm_stem_l123.safetensors"
    model = Hgad(backbone_weights=weights, image_size=128, seed=0)
    old, new = (data(few_shared / "data", *some) for some in (names[:-1], names[-1:]))
    engine(tmp_path).fit(model, datamodule=old)
    assert_untouched(model, old, new, tmp_path)
    (run := engine(tmp_path)).test(model, datamodule=new)
    assert all_figures(run)["ClassAccuracy"] == 1


@pytest.mark.nightly
def test_commands_add_list_and_remove(
    checkpoint: Path, plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old checkpoint stays; a model of the new one says what the one in memory did, tested and exported."""
    original, new = checkpoint.read_bytes(), tmp_path / "new.ckpt"
    few = tmp_path / "few"
    shutil.copytree(plant / "washer/train/good", few)
    arguments = ["--ckpt_path", str(checkpoint), "--data.root", str(few), "--name", "washer", "--output", str(new)]
    assert cli.main(["add-product", *arguments, "--known_images", str(plant / "bolt/test")]) == 0
    printed = capsys.readouterr().out
    assert "Added washer: 8 images." in printed
    assert "Checkpoint of 4 products" in printed
    assert "Warning" not in printed
    assert checkpoint.read_bytes() == original
    assert cli.main(["list-products", "--ckpt_path", str(new)]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if "washer" in line or "bolt" in line]
    assert len(listed) == 2
    assert all(" 8 " in line for line in listed)

    model = Hgad.load_from_checkpoint(checkpoint)
    model.add_classes(data(plant, "washer"), "cpu")
    expected = predictions(model, data(plant), tmp_path)
    loaded = Hgad.load_from_checkpoint(new)
    assert loaded.class_names == ["bolt", "nut", "rivet", "washer"]
    for name, values in predictions(loaded, data(plant), tmp_path).items():
        assert torch.equal(values, expected[name]), name
    by_path = predictions(light(), data(plant), tmp_path, ckpt_path=str(new))
    assert torch.equal(by_path["raw_score"], expected["raw_score"])

    file = loaded.to_openvino(tmp_path)
    image = plant / "washer/test/good/000.png"
    assert ClassOpenVINOInferencer(file).predict(image).pred_class_name == ["washer"]

    assert cli.main(["remove-product", "--ckpt_path", str(new), "--names", "[nut]"]) == 0
    removed = Hgad.load_from_checkpoint(tmp_path / "new-without-nut.ckpt")
    assert removed.class_names == ["bolt", "rivet", "washer"]
    left = data(plant, "bolt", "rivet", "washer")
    before, after = (predictions(one, left, tmp_path) for one in (loaded, removed))
    for name in set(FIELDS) - {"pred_class_index"}:
        assert torch.equal(after[name], before[name]), name


def test_training_goes_on_with_all_products(checkpoint: Path, plant: Path, tmp_path: Path) -> None:
    """As if they had been trained together: nothing of the order in which they came is left."""
    new = tmp_path / "new.ckpt"
    arguments = ["--ckpt_path", str(checkpoint), "--data.root", str(plant / "washer"), "--output", str(new)]
    assert cli.main(["add-product", *arguments]) == 0
    resumed, together = light(), light()
    metrics, expected = (
        engine(tmp_path / name).train(model, datamodule=data(plant), ckpt_path=ckpt_path)[0]
        for name, model, ckpt_path in (("resumed", resumed, str(new)), ("together", together, None))
    )
    assert metrics == pytest.approx(expected, abs=1e-3)
    assert resumed.model.num_added == 0
    state = resumed.model.state_dict()
    for name, value in together.model.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.nightly
def test_products_are_added_to_a_trained_flow_and_trained_on(plant: Path, tmp_path: Path) -> None:
    settings = {"flow": "cflow", "flow_arguments": LIGHT["flow_arguments"], "feature_cache": False}
    run = engine(tmp_path, max_epochs=1)
    run.fit(light(**settings), datamodule=data(plant, "bolt", "nut", "rivet"))
    new = tmp_path / "new.ckpt"
    arguments = ["--ckpt_path", run.best_model_path, "--data.root", str(plant / "washer"), "--output", str(new)]
    assert cli.main(["add-product", *arguments]) == 0
    model = Hgad.load_from_checkpoint(new)
    (run := engine(tmp_path)).test(model, datamodule=data(plant))
    metrics = all_figures(run)
    assert metrics["ClassAccuracy_washer"] == 1
    resumed = light(**settings)
    engine(tmp_path, max_epochs=2).fit(resumed, datamodule=data(plant), ckpt_path=str(new))
    assert resumed.model.num_added == 0
    assert resumed.trainer.current_epoch == 2


def test_thresholds_of_classes_are_given_to_an_added_one(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a rate of 0.2 four images are enough, and of the eight one is above it."""
    old = MultiClass(
        root=plant, categories=["bolt", "nut"], val_split_mode="from_train", val_split_ratio=0.5, num_workers=0
    )
    model = light(post_processor=NormalPostProcessor(false_positive_rate=0.2, each_class=True))
    engine(tmp_path).fit(model, datamodule=old)
    model.add_classes(data(plant, "washer"), "cpu")
    calibration, thresholds = model.model.calibration, model.model.calibration.class_thresholds
    model.trainer.save_checkpoint(tmp_path / "three.ckpt")
    assert cli.main(["list-products", "--ckpt_path", str(tmp_path / "three.ckpt")]) == 0
    listed = next(line for line in capsys.readouterr().out.splitlines() if "washer" in line)
    own = model.post_processor.image_threshold - thresholds.shift[2]
    assert f" {calibration.location[2] + own * calibration.spread[2]:.3f} " in listed
    assert thresholds.rate.tolist() == pytest.approx([0.2] * 3)
    assert thresholds.images.tolist() == [4, 4, 8]
    assert thresholds.shift[2] != 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data.root", "PLANT/nut"], "The model already knows nut"),
        (["--data.root", "PLANT/washer", "--name", "bolt"], "The model already knows bolt"),
        (
            ["--data.root", "PLANT", "--name", "x"],
            "Expected one product for the name 'x', got bolt, nut, rivet, washer",
        ),
        (["--data.root", "EMPTY"], "Expected a folder with a subfolder for each class, but"),
        (["--data.root", "NOTHING"], "NOTHING is missing"),
        (["--data.root", "PLANT/washer", "--name", "a/b"], "a/b"),
        (["--data.rot", "PLANT/washer"], "MultiClass has no argument rot"),
        (["--data.root", "PLANT/washer", "--known_images", "EMPTY"], "Expected images of known products in"),
        (["--data.root", "PLANT/washer", "--ckpt_path", "EMPTY/no.ckpt"], "No checkpoint at"),
    ],
    ids=["known", "name", "names", "empty", "missing", "path", "argument", "known_images", "checkpoint"],
)
def test_wrong_input_is_one_sentence(
    change: list[str], message: str, checkpoint: Path, plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "EMPTY").mkdir()
    places = {"PLANT": str(plant), "EMPTY": str(tmp_path / "EMPTY"), "NOTHING": str(tmp_path / "NOTHING")}
    for name, place in places.items():
        change = [value.replace(name, place) for value in change]
    if "--ckpt_path" not in change:
        change = [*change, "--ckpt_path", str(checkpoint)]
    with pytest.raises(SystemExit):
        cli.main(["add-product", *change, "--output", str(tmp_path / "new.ckpt")])
    assert message.replace("NOTHING", places["NOTHING"]) in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new.ckpt").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[screw]", "does not know 'screw'. It knows bolt, nut, rivet"),
        ("[bolt,nut,rivet]", "'rivet' is the only product"),
    ],
)
def test_products_that_cannot_be_removed(
    names: str, message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new.ckpt"
    with pytest.raises(SystemExit):
        cli.main(["remove-product", "--ckpt_path", str(checkpoint), "--names", names, "--output", str(output)])
    assert message in " ".join(capsys.readouterr().err.split())
    assert not output.exists()


def test_checkpoints_that_take_no_products(plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a single Gaussian, of another model, and of an earlier version."""
    from anomalib_hgad import UniAd  # noqa: PLC0415

    single = engine(tmp_path / "single")
    single.fit(light(prior="single_gaussian", score="standardized"), datamodule=data(plant, "bolt", "nut"))
    other = engine(tmp_path / "other")
    other.fit(UniAd(**LIGHT_UNIAD), datamodule=data(plant, "bolt", "nut"))
    earlier = tmp_path / "earlier.ckpt"
    saved = torch.load(single.best_model_path, weights_only=True)
    saved["hgad_versions"]["anomalib-hgad"] = "0.3.0"
    torch.save(saved, earlier)
    for path, message in (
        (single.best_model_path, "expected|with classes; this one has prior='single_gaussian'"),
        (other.best_model_path, "of anomalib_hgad.Hgad"),
        (earlier, "was made with anomalib-hgad 0.3.0"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["add-product", "--ckpt_path", str(path), "--data.root", str(plant / "washer")])
        printed = " ".join(capsys.readouterr().err.split())
        assert message.rpartition("|")[2] in printed
        assert "Traceback" not in printed

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Hgad inside anomalib: what the host expects of every model, through Engine and the inferencers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import f1_score, roc_auc_score

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.evaluation.default_metrics import RETURNED
from anomalib_hgad.evaluation.predictions import read_predictions
from tests.helpers import trees
from tests.helpers.engines import all_figures, engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD


def light_model(**settings: Any) -> Hgad:
    return Hgad(**LIGHT | settings)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "data"
    trees.mvtec_class(folder / "bolt", train=6, good=4, bad=4)
    trees.mvtec_class(folder / "nut", train=5, good=3, bad=3, size=(48, 40), suffix=".jpg")
    trees.mvtec_class(folder / "washer", train=4, masks=False, mode="L")
    return folder


def multi_class(root: Path, **settings: Any) -> MultiClass:
    return MultiClass(
        **{
            "root": root,
            "train_batch_size": 4,
            "eval_batch_size": 4,
            "num_workers": 0,
            "val_split_mode": "same_as_test",
        }
        | settings,
    )


class Collect(Callback):
    """Keeps the batches of a test after all predictions."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.batches.append(outputs)


@pytest.fixture(scope="module")
def trained(
    data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, Hgad, list[dict[str, float]], list]:
    seed_everything(0)
    collect = Collect()
    run = engine(tmp_path_factory.mktemp("run"), collect, max_epochs=3, logger=True)
    model = light_model(lr=1e-3)
    run.train(model, datamodule=multi_class(data_root))
    return run, model, [all_figures(run)], collect.batches


@pytest.mark.slow
def test_figures_are_those_of_scikit_learn(trained: Any) -> None:
    _, _, figures, batches = trained
    names = [name for batch in batches for name in batch.class_name]
    scores, labels = (torch.cat([getattr(batch, field) for batch in batches]) for field in ("raw_score", "gt_label"))
    of_class = {}
    for name in ("bolt", "nut", "washer"):
        rows = [index for index, other in enumerate(names) if other == name]
        of_class[name] = roc_auc_score(labels[rows].int(), scores[rows])
        assert figures[0][f"image_AUROC_{name}"] == pytest.approx(of_class[name], abs=1e-6)
    assert figures[0]["image_AUROC"] == pytest.approx(np.mean(list(of_class.values())), abs=1e-6)
    assert figures[0]["image_AUROC_pooled"] == pytest.approx(roc_auc_score(labels.int(), scores), abs=1e-6)


@pytest.mark.slow
def test_pixel_figures_are_over_the_classes_with_masks(trained: Any) -> None:
    _, _, figures, batches = trained
    of_class = []
    for name in ("bolt", "nut"):
        maps, masks = [], []
        for batch in batches:
            rows = [index for index, other in enumerate(batch.class_name) if other == name]
            if rows:
                maps.append(batch.class_inferred_map[rows].flatten())
                masks.append(batch.gt_mask[rows].flatten())
        of_class.append(roc_auc_score(torch.cat(masks).int(), torch.cat(maps)))
        assert figures[0][f"pixel_AUROC_{name}"] == pytest.approx(of_class[-1], abs=1e-5)
    assert figures[0]["pixel_AUROC"] == pytest.approx(np.mean(of_class), abs=1e-5)
    assert "pixel_AUROC_washer" not in figures[0]


@pytest.mark.slow
def test_pixels_above_the_limit_of_their_class_are_judged_too(trained: Any) -> None:
    """Those of the raw map above 1, which no post-processor has changed."""
    _, _, figures, batches = trained
    of_class = []
    for name in ("bolt", "nut"):
        marked, masks = [], []
        for batch in batches:
            assert torch.equal(batch.limit_mask, batch.class_inferred_map > 1)
            rows = [index for index, other in enumerate(batch.class_name) if other == name]
            if rows:
                marked.append(batch.limit_mask[rows].flatten())
                masks.append(batch.gt_mask[rows].flatten())
        of_class.append(f1_score(torch.cat(masks).int(), torch.cat(marked)))
        assert figures[0][f"normal_limit_pixel_F1Score_{name}"] == pytest.approx(of_class[-1], abs=1e-5)
    assert figures[0]["normal_limit_pixel_F1Score"] == pytest.approx(np.mean(of_class), abs=1e-5)
    assert "normal_limit_pixel_F1Score_washer" not in figures[0]


@pytest.mark.slow
def test_both_sources_of_the_class_are_reported(trained: Any) -> None:
    _, _, figures, _ = trained
    for source in ("given", "inferred"):
        assert {f"class_{source}_image_AUROC", f"class_{source}_pixel_AUROC"} <= set(figures[0])
    assert "ClassAccuracy" in figures[0]


@pytest.mark.slow
def test_given_class_is_used_on_request(trained: Any, data_root: Path, tmp_path: Path) -> None:
    _, model, figures, _ = trained
    model.class_source, model.post_processor.enable_normalization = "given", False
    (run := engine(tmp_path)).test(model, datamodule=multi_class(data_root))
    given = all_figures(run)
    model.class_source, model.post_processor.enable_normalization = "inferred", True
    assert given["class_inferred_image_AUROC"] == pytest.approx(figures[0]["class_inferred_image_AUROC"], abs=1e-6)
    assert given["image_AUROC"] == pytest.approx(figures[0]["class_given_image_AUROC"], abs=1e-6)


@pytest.mark.slow
def test_predictions_name_the_inferred_class(trained: Any) -> None:
    _, model, _, batches = trained
    for batch in batches:
        assert batch.pred_class_name == [model.class_names[index] for index in batch.pred_class_index]


@pytest.mark.slow
def test_losses_are_logged_by_name(data_root: Path, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    engine(tmp_path, max_epochs=2, logger=logger, log_every_n_steps=1).fit(
        light_model(training_arguments={"first_stage": 0.5}),
        datamodule=multi_class(data_root),
    )
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    terms = ("inter", "mutual_information", "entropy", "intra", "likelihood", "loss")
    assert {f"train_{term}_{when}" for term in terms for when in ("step", "epoch")} <= set(rows[0])
    steps = [row for row in rows if row["train_loss_step"]]
    assert [float(row["stage"]) for row in steps] == [1.0] * (len(steps) // 2) + [2.0] * (len(steps) // 2)
    weights = {"inter": 1.0, "mutual_information": 100.0, "entropy": 1.0, "intra": 1.0, "likelihood": 1.0}
    for row in steps:
        trained = weights if float(row["stage"]) == 2 else ("inter", "mutual_information", "entropy")
        total = sum(weights[term] * float(row[f"train_{term}_step"]) for term in trained)
        assert float(row["train_loss_step"]) == pytest.approx(total, rel=1e-4)


@pytest.mark.slow
def test_checkpoint_and_early_stopping_on_validation_figures(data_root: Path, tmp_path: Path) -> None:
    best = ModelCheckpoint(dirpath=tmp_path, monitor="val_image_AUROC", mode="max")
    stop = EarlyStopping(monitor="val_pixel_AUROC", mode="max", patience=1)
    engine(tmp_path, best, stop, max_epochs=2).fit(light_model(), datamodule=multi_class(data_root))
    assert best.best_model_score is not None


@pytest.mark.slow
def test_plain_datamodule_is_one_class(data_root: Path, tmp_path: Path) -> None:
    """No figure is there twice, by the name of the class or as that of all images."""
    model = light_model()
    datamodule = MVTecAD(data_root, "bolt", train_batch_size=4, eval_batch_size=4, num_workers=0)
    (run := engine(tmp_path)).train(model, datamodule=datamodule)
    assert model.class_names == ["bolt"]
    figures = {name for name in all_figures(run) if not name.startswith(("train_", "val_", "stage"))}
    assert figures == set(run.model.evaluator.results.pooled)
    assert {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_AUPRO", "normal_limit_pixel_F1Score"} <= figures


@pytest.mark.slow
def test_checkpoint_tests_a_choice_of_its_classes(trained: Any, data_root: Path, tmp_path: Path) -> None:
    run, _, figures, _ = trained
    datamodule = MultiClass([multi_class(data_root, categories=[name]) for name in ("nut", "bolt")], num_workers=0)
    (other := engine(tmp_path)).test(light_model(), datamodule=datamodule, ckpt_path=run.best_model_path)
    again = all_figures(other)
    for name in ("bolt", "nut"):
        key = f"class_given_image_AUROC_{name}"
        assert again[key] == pytest.approx(figures[0][key], abs=1e-6)


@pytest.mark.slow
def test_unknown_classes_are_named(trained: Any, tmp_path: Path) -> None:
    run, *_ = trained
    trees.mvtec_class(tmp_path / "data/bolt")
    trees.mvtec_class(tmp_path / "data/gear")
    with pytest.raises(
        ValueError, match=r"not trained on these classes of the data: gear\. It knows bolt, nut, washer"
    ):
        engine(tmp_path).test(light_model(), datamodule=multi_class(tmp_path / "data"), ckpt_path=run.best_model_path)


@pytest.mark.slow
def test_training_resumes_only_on_its_classes(trained: Any, tmp_path: Path) -> None:
    run, *_ = trained
    trees.mvtec_class(tmp_path / "data/gear")
    with pytest.raises(ValueError, match="only be resumed on the classes it began with"):
        engine(tmp_path, max_epochs=5).fit(
            light_model(),
            datamodule=multi_class(tmp_path / "data"),
            ckpt_path=run.best_model_path,
        )


def test_wrong_number_of_classes_is_an_error(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_classes=7, but the data has 3 classes: bolt, nut, washer"):
        engine(tmp_path).fit(light_model(num_classes=7), datamodule=multi_class(data_root))


def test_entropy_of_one_class_is_an_error(data_root: Path, tmp_path: Path) -> None:
    datamodule = MVTecAD(data_root, "bolt", train_batch_size=4, num_workers=0)
    with pytest.raises(ValueError, match="With one class the entropy"):
        engine(tmp_path).fit(light_model(score="entropy"), datamodule=datamodule)


def test_several_classes_need_labels(data_root: Path, tmp_path: Path) -> None:
    plain = MVTecAD(data_root, "bolt", train_batch_size=4, num_workers=0)
    plain.setup()
    with pytest.raises(ValueError, match=r"no class_index. Load the images with anomalib_hgad.MultiClass"):
        engine(tmp_path).fit(light_model(num_classes=2), train_dataloaders=plain.train_dataloader())


@pytest.mark.parametrize(("given", "epochs"), [({}, 100), ({"max_epochs": 1000}, 1000), ({"max_steps": 5}, -1)])
def test_default_number_of_epochs_yields_to_the_users(given: dict[str, int], epochs: int, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            assert trainer.max_epochs == epochs
            trainer.should_stop = True

    trees.mvtec_class(tmp_path / "data/bolt", train=2)
    run = engine(tmp_path, Stop(), **{"max_epochs": None} | given, limit_train_batches=1)
    run.fit(light_model(), datamodule=multi_class(tmp_path / "data"))
    assert run.trainer.max_epochs == epochs


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"prior": "fixed_centers", "num_centers": 1, "loss_weights": {"inter": 0.0, "mutual_information": 0.0}},
        {"prior": "single_gaussian", "training_arguments": {"first_stage": 0.0}},
        {"num_centers": 1, "whiten": False, "score": "log_likelihood", "calibration_share": None},
        {"levels": {"layer1": [1.0], "layer2": [1.0]}, "score": "entropy"},
    ],
    ids=["fixed centres", "single Gaussian", "literal features", "stages of one image"],
)
def test_settings_of_the_ablation_train(settings: dict[str, Any], data_root: Path, tmp_path: Path) -> None:
    (run := engine(tmp_path)).train(light_model(**settings), datamodule=multi_class(data_root))
    assert {"image_AUROC_bolt", "image_AUROC_nut", "image_AUROC_washer"} <= set(all_figures(run))


@pytest.mark.slow
def test_maps_without_a_scale_have_no_masks_of_their_own(data_root: Path, tmp_path: Path) -> None:
    """A limit on the scale of calibrated maps would mark any number of pixels."""
    model = light_model(calibration_share=None)
    (run := engine(tmp_path)).train(model, datamodule=multi_class(data_root))
    figures = all_figures(run)
    assert model.pixel_limit is None
    assert "pixel_F1Score" in figures
    assert not [name for name in figures if name.startswith("normal_limit")]


@pytest.mark.slow
def test_without_validation_the_checkpoint_has_the_constants(data_root: Path, tmp_path: Path) -> None:
    run = engine(tmp_path, limit_val_batches=0)
    run.fit(light_model(), datamodule=multi_class(data_root))
    model = Hgad.load_from_checkpoint(run.best_model_path)
    assert (model.model.calibration.maximum[..., 0] != 0).all()
    assert (model.model.calibration.deviation[..., 0] != 1).all()
    assert (model.model.calibration.spread != 1).all()
    assert (model.model.calibration.pixel_spread != 1).all()


@pytest.mark.slow
def test_score_of_an_image_does_not_depend_on_its_batch(trained: Any, data_root: Path, tmp_path: Path) -> None:
    _, model, *_ = trained
    by_batch_size = []
    for size in (1, 2, 32):
        collect = Collect()
        engine(tmp_path, collect).test(model, datamodule=multi_class(data_root, eval_batch_size=size))
        paths = [path for batch in collect.batches for path in batch.image_path]
        by_batch_size.append(dict(zip(paths, torch.cat([batch.pred_score for batch in collect.batches]), strict=True)))
    alone, *others = by_batch_size
    for other in others:
        assert {path: score.item() for path, score in other.items()} == pytest.approx(
            {path: score.item() for path, score in alone.items()},
            abs=1e-4,
        )


@pytest.mark.slow
def test_calibration_keeps_the_order_within_a_class(trained: Any, data_root: Path, tmp_path: Path) -> None:
    _, model, figures, _ = trained
    constants = model.model.calibration
    before = {name: constant.clone() for name, constant in constants.state_dict().items()}
    constants.clear_scale()
    model.post_processor.enable_normalization, normalization = False, model.post_processor.enable_normalization
    (run := engine(tmp_path)).test(model, datamodule=multi_class(data_root))
    plain = all_figures(run)
    model.post_processor.enable_normalization = normalization
    assert (before["spread"] != 1).all()
    assert (before["pixel_spread"] != 1).all()
    constants.load_state_dict(before)
    keys = [f"class_given_image_AUROC_{name}" for name in ("bolt", "nut", "washer")]
    for key in (*keys, "class_given_pixel_AUROC_bolt", "class_given_pixel_AUROC_nut"):
        assert plain[key] == pytest.approx(figures[0][key], abs=1e-6 if "image" in key else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "trainer", "data"),
    [
        (light_model, {"limit_val_batches": 0}, {}),
        (lambda: UniAd(**LIGHT_UNIAD), {}, {"val_split_mode": "none"}),
    ],
    ids=["limit_val_batches", "val_split_mode"],
)
def test_without_validation_figures_are_those_of_raw_scores_and_labels_absent(
    build: Any,
    trainer: dict[str, Any],
    data: dict[str, Any],
    data_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, datamodule = build(), multi_class(data_root, categories=["bolt"], **data)
    run = engine(tmp_path, **trainer)
    run.fit(model, datamodule=datamodule)
    said = "no threshold on the scale of the scores, as no validation was run"
    assert said in caplog.text
    caplog.clear()
    (figures,) = run.test(model, datamodule=datamodule)
    assert said in caplog.text
    rows = read_predictions(Path(run.trainer.default_root_dir))
    assert {row.pred_label for row in rows} == {None}
    auroc = roc_auc_score([row.gt_label for row in rows], [row.raw_score for row in rows])
    assert figures["image_AUROC"] == pytest.approx(auroc)
    assert np.isnan(figures["image_F1Score"])
    caplog.clear()
    batches = run.predict(model, datamodule=datamodule)
    assert said in caplog.text
    assert {(batch.pred_label, batch.pred_mask) for batch in batches} == {(None, None)}


@pytest.mark.slow
def test_loggers_get_the_figures_that_a_test_does_not_return(trained: Any, data_root: Path, tmp_path: Path) -> None:
    _, model, *_ = trained
    logger = CSVLogger(tmp_path)
    (run := engine(tmp_path, logger=logger)).test(model, datamodule=multi_class(data_root))
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        logged = {name: float(value) for row in csv.DictReader(file) for name, value in row.items() if value}
    assert {"image_AUROC", "image_AUROC_bolt", "image_AUROC_pooled", "pixel_AUPRO_nut"} <= set(logged)
    assert {name: logged[name] for name in all_figures(run)} == pytest.approx(all_figures(run), abs=1e-6)


@pytest.mark.slow
def test_bare_engine_gives_figures(trained: Any, data_root: Path, tmp_path: Path) -> None:
    """Lightning logs nothing then."""
    _, model, figures, _ = trained
    bare = Engine(accelerator="cpu", barebones=True, default_root_dir=tmp_path)
    (given,) = bare.test(model, datamodule=multi_class(data_root))
    assert given == {name: pytest.approx(figures[0][name], abs=1e-5) for name in RETURNED}
    bare.validate(model, datamodule=multi_class(data_root))
    assert "val_image_AUROC" in bare.trainer.callback_metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_source": "guess"}, "Expected class_source to be one of 'inferred', 'given'; got 'guess'"),
        ({"prior": "cauchy"}, "Expected prior to be one of 'hierarchical', 'fixed_centers', 'single_gaussian'"),
        (
            {"score": "mean"},
            "Expected score to be one of 'contrast', 'standardized', 'sum', 'product', 'log_likelihood'",
        ),
        (
            {"score": "contrast"},
            "expected covariance='full' or another score than 'contrast', got covariance='identity'",
        ),
        ({"score_share": 1.1}, "expected 0 <= score_share <= 1, got 1.1"),
        ({"neighborhood": 2}, "expected neighborhood to be odd, got 2"),
        ({"training_arguments": {"first_stage": 1.5}}, "expected 0 <= first_stage < 1, got 1.5"),
        ({"training_arguments": {"lr": 1e-3}}, "there is no setting lr. Expected some of weight_decay, warmup"),
        ({"position_share": 0.0}, "expected 0 < position_share <= 1, got 0.0"),
        ({"position_share": 1.1}, "expected 0 < position_share <= 1, got 1.1"),
        ({"flow_arguments": {"condition_dim": 10}}, "positive multiple of 4, got 10"),
        ({"num_classes": 0}, "expected 0 < num_classes < inf, got 0"),
        ({"num_centers": 0}, "expected 1 <= num_centers < inf, got 0"),
        ({"training_arguments": {"weight_decay": -1e-4}}, "expected 0 <= weight_decay < inf, got -0.0001"),
        ({"lr": 0.0}, "expected 0 < lr < inf, got 0.0"),
        ({"lr": float("inf")}, "expected 0 < lr < inf, got inf"),
        ({"flow_arguments": {"clamp_alpha": 0.0}}, "expected 0 < clamp_alpha < inf, got 0.0"),
        ({"image_size": 0}, "expected 0 < height of image_size < inf, got 0"),
        ({"image_size": (32, -32)}, "expected 0 < width of image_size < inf, got -32"),
        ({"loss_weights": {"inter": -1.0}}, r"expected 0 <= loss_weights\['inter'\] < inf, got -1.0"),
        ({"loss_weights": {"mutual": 1.0}}, "there is no loss mutual. Expected some of inter, mutual_information"),
        ({"loss_weights": {"entropy": float("nan")}}, r"expected 0 <= loss_weights\['entropy'\] < inf, got nan"),
        ({"loss_weights": {"intra": float("inf")}}, r"expected 0 <= loss_weights\['intra'\] < inf, got inf"),
        (
            {"image_size": 8, "levels": {"layer2": [1.0, 0.1]}},
            r"image_size=\(8, 8\) at scale 0.1 leaves no pixel. Use a larger",
        ),
    ],
)
def test_settings_out_of_range_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        light_model(**settings)

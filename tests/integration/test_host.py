# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What docs/reference/host.md says of anomalib, Lightning and others, where no other test stands on it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.engine import Engine
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.models.components import TimmFeatureExtractor
from lightning.pytorch import Trainer
from sklearn.metrics import roc_auc_score
from torch.optim import Adam
from torchmetrics.classification import BinaryAUROC

from anomalib_hgad import ClassEvaluator, Hgad, MultiClass, NormalPostProcessor, UniAd
from anomalib_hgad.benchmark.execution import ModelClock
from anomalib_hgad.common.backbones import available_layers
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.data.batch import ClassImageBatch, ClassImageItem, NumpyClassImageBatch
from anomalib_hgad.data.setup import _strings_as_objects
from anomalib_hgad.evaluation.predictions import predictions_of_batch
from anomalib_hgad.evaluation.values import between_0_and_1
from anomalib_hgad.models.checkpoint_io import WholeCheckpointIO, WholeCheckpoints
from tests.helpers import trees
from tests.helpers.light import LIGHT, LIGHT_UNIAD

pytestmark = pytest.mark.slow

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture
def data(tmp_path: Path) -> MultiClass:
    trees.mvtec_class(tmp_path / "data/bolt")
    trees.mvtec_class(tmp_path / "data/nut", masks=False)
    return MultiClass(root=tmp_path / "data", num_workers=0, train_batch_size=4, val_split_mode="same_as_test")


@pytest.mark.parametrize("build", [lambda: Hgad(**LIGHT), lambda: UniAd(**LIGHT_UNIAD)], ids=["Hgad", "UniAd"])
@pytest.mark.parametrize(("given", "epochs"), [({"max_time": "00:00:01:00"}, None), ({"max_epochs": 7}, 7)])
def test_a_limit_of_time_is_an_end_as_well(build: Any, given: dict[str, Any], epochs: int | None) -> None:
    """The number of epochs is set when a model gets its trainer, and only where the user sets no end."""
    trainer = Trainer(**given, **QUIET, accelerator="cpu")
    build().trainer = trainer
    assert trainer.fit_loop.max_epochs == epochs


def test_adam_is_fused_unless_gradients_are_clipped(data: MultiClass, tmp_path: Path) -> None:
    """Lightning refuses to clip the gradients of a fused optimiser under 16-mixed."""
    for clip in (None, 0.5):
        engine = Engine(
            **QUIET, max_epochs=1, accelerator="cpu", gradient_clip_val=clip, default_root_dir=tmp_path / str(clip)
        )
        engine.fit(Hgad(**LIGHT), datamodule=data)
        (optimizer,) = engine.trainer.optimizers
        assert isinstance(optimizer, Adam)
        assert optimizer.defaults["fused"] == (clip is None)


class OfTheUser(AnomalibCheckpointIO):
    """Another way to write checkpoints."""


@pytest.mark.parametrize(
    ("host", "plugins", "used"),
    [
        (Engine, {}, WholeCheckpointIO),
        (Trainer, {}, WholeCheckpointIO),
        (Engine, {"plugins": [OfTheUser()]}, OfTheUser),
    ],
    ids=["engine", "trainer", "the user's own"],
)
def test_checkpoints_are_written_whole_unless_the_user_says_how(
    data: MultiClass, tmp_path: Path, host: Any, plugins: dict[str, Any], used: type
) -> None:
    run = host(**QUIET, max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, limit_train_batches=1, **plugins)
    run.fit(Hgad(**LIGHT, visualizer=False), datamodule=data)
    trainer = run.trainer if host is Engine else run
    assert type(trainer.strategy.checkpoint_io) is used
    assert sum(isinstance(callback, WholeCheckpoints) for callback in trainer.callbacks) == 1


def test_clock_of_a_benchmark_runs_before_figures_are_computed(data: MultiClass, tmp_path: Path) -> None:
    """Lightning puts callbacks of the user before those of the model."""
    engine = Engine(
        **QUIET,
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=tmp_path,
        limit_train_batches=1,
        callbacks=[ModelClock()],
    )
    engine.fit(Hgad(**LIGHT, visualizer=False), datamodule=data)
    kinds = [type(callback) for callback in engine.trainer.callbacks]
    assert kinds.index(ModelClock) < kinds.index(ClassEvaluator)


def test_loaders_and_feature_cache_leave_a_collate_function_from_outside_alone(
    data: MultiClass, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """anomalib's tiled ensemble sets one on the datamodule."""
    sizes = []

    def collate(items: list[ClassImageItem]) -> ClassImageBatch:
        sizes.append(len(items))
        return ClassImageBatch.collate(items)

    data.external_collate_fn = collate
    engine = Engine(**QUIET, max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, limit_train_batches=1)
    engine.fit(Hgad(**LIGHT, visualizer=False), datamodule=data)
    assert "the training images do not all come from an anomalib datamodule" in caplog.text
    sizes.clear()
    batches = list(data.test_dataloader())
    assert sizes == [len(batch.image) for batch in batches] == [4, 4]


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_stages_behind_the_last_layer_are_cut(backbone: str) -> None:
    """timm leaves them in these backbones, though nobody sees their features."""
    encoder = PyramidEncoder(backbone, {"blocks.1": [1.0]}, pre_trained=False)
    position = available_layers(backbone).index("blocks.1")
    whole = timm.create_model(backbone, features_only=True, out_indices=(position,)).eval()
    assert len(encoder.extractor.feature_extractor.blocks) == 2 < len(whole.blocks)
    left_out = whole.load_state_dict(encoder.extractor.feature_extractor.state_dict(), strict=False)
    assert all(name.startswith("blocks.") for name in left_out.missing_keys)
    assert not left_out.unexpected_keys
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), whole(images))


def test_backbone_with_vit_in_its_name_that_is_no_vision_transformer_is_read_as_what_it_is() -> None:
    """anomalib takes all of that name for Vision Transformers."""
    assert available_layers("mobilevit_xxs") == [*(f"stages.{index}" for index in range(4)), "final_conv"]
    with pytest.raises(TypeError, match="dynamic_img_size"):
        TimmFeatureExtractor("mobilevit_xxs", ["stages.1"], pre_trained=False)


def item(name: str, mask: bool) -> ClassImageItem:
    return ClassImageItem(
        image=torch.rand(3, 4, 4),
        gt_label=torch.tensor(mask),
        gt_mask=torch.ones(4, 4, dtype=torch.bool) if mask else None,
        mask_path="mask.png" if mask else None,
        class_index=torch.tensor(len(name)),
        class_name=name,
    )


@pytest.mark.parametrize("masks", [(True, False), (False, True)])
def test_batch_has_the_fields_that_all_of_its_items_have(masks: tuple[bool, bool]) -> None:
    """anomalib's own looks at the first item alone."""
    batch = ClassImageBatch.collate([item("ab", masks[0]), item("abc", masks[1])])
    assert batch.gt_mask is None
    assert batch.mask_path == ["mask.png" if mask else "" for mask in masks]
    assert batch.gt_label.tolist() == list(masks)
    assert (batch.class_index.tolist(), batch.class_name) == ([2, 3], ["ab", "abc"])


def test_class_of_an_image_survives_what_anomalib_does_to_batches() -> None:
    """To iterate, to update and to convert a batch, anomalib asks its class for the kinds of items and arrays."""
    batch = ClassImageBatch.collate([item("ab", mask=True), item("abc", mask=True)])
    assert isinstance(batch, ImageBatch)
    batch.update(pred_score=torch.tensor([1.0, 2.0]), pred_class_name=["abc", "unknown"])
    first, second = list(batch)
    assert isinstance(first, ClassImageItem)
    assert (first.class_name, int(second.class_index), second.pred_class_name) == ("ab", 3, "unknown")
    arrays = batch.to_numpy()
    assert isinstance(arrays, NumpyClassImageBatch)
    assert arrays.class_name == ["ab", "abc"]
    np.testing.assert_array_equal(arrays.class_index, [2, 3])


def test_no_mask_is_read_from_the_text_that_anomalib_makes_of_none() -> None:
    batch = ImageBatch(image=torch.zeros(2, 3, 4, 4), image_path=["a.png", "b.png"], mask_path=["mask.png", None])
    assert batch.mask_path == ["mask.png", "None"]
    assert [row.mask_path for row in predictions_of_batch(batch)] == ["mask.png", None]


def test_scores_beyond_0_and_1_are_not_taken_for_logits() -> None:
    """torchmetrics brings each batch of such scores between 0 and 1 by itself, and takes others as they are."""
    in_range = (torch.tensor([0.3, 0.8, 0.9]), torch.tensor([0, 0, 1]))
    beyond = (torch.tensor([0.85, 5.0]), torch.tensor([1, 1]))  # 0.85 would become 0.70
    batches = (in_range, beyond)
    scores, labels = (torch.cat(values) for values in zip(*batches, strict=True))
    expected = roc_auc_score(labels, scores)
    plain, ours = BinaryAUROC(), BinaryAUROC()
    for values, truth in batches:
        plain.update(values, truth)
        ours.update(between_0_and_1(values), truth)
    assert plain.compute().item() != pytest.approx(expected)
    assert ours.compute().item() == pytest.approx(expected)


def test_thresholds_from_normal_images_are_read_by_a_plain_post_processor() -> None:
    """Checkpoints do not say which class a post-processor is of."""
    trained, plain = Hgad(**LIGHT, post_processor=NormalPostProcessor()), Hgad(**LIGHT)
    trained.post_processor._image_threshold.fill_(2.5)
    content: dict[str, Any] = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(content)
    plain.on_load_checkpoint(content)
    plain.load_state_dict(content["state_dict"])
    assert plain.post_processor.image_threshold.item() == 2.5


@pytest.mark.skipif(not pd.__version__.startswith("3."), reason="pandas 2 holds strings as objects")
def test_pandas_3_holds_strings_as_pandas_2_while_a_class_is_set_up() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with _strings_as_objects():
            assert pd.Series(["a"]).dtype == object
    assert pd.Series(["a"]).dtype == "str"


def test_first_item_decides_what_a_plain_batch_of_anomalib_has() -> None:
    """The reason for a collate of our own; without it, that is to go."""
    items = [ImageItem(image=torch.zeros(3, 4, 4), gt_mask=mask) for mask in (None, torch.ones(4, 4, dtype=torch.bool))]
    assert ImageBatch.collate(items).gt_mask is None
    with pytest.raises(TypeError):
        ImageBatch.collate(items[::-1])

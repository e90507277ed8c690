# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pre- and post-processors that a user gives a model, and that would change scores or labels without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from anomalib.data import MVTecAD
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize, Transform

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.models.component_checks import check_resized_first
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD

SCALED = Normalize([0.5] * 3, [0.2] * 3)


@pytest.mark.parametrize("kind", [Hgad, UniAd])
@pytest.mark.parametrize("name", ["image_sensitivity", "pixel_sensitivity"])
@pytest.mark.parametrize("value", [50, -0.1, None])
def test_sensitivity_out_of_range_is_refused(kind: type[Hgad | UniAd], name: str, value: float | None) -> None:
    settings = LIGHT if kind is Hgad else LIGHT_UNIAD
    with pytest.raises(ValueError, match=rf"post_processor: expected {name} from 0 to 1, got {value}"):
        kind(**settings, post_processor=PostProcessor(**{name: value}))


@pytest.mark.parametrize(("size", "told"), [((48, 40), True), ((32, 32), False)])
def test_pre_processor_of_another_size_is_told(
    size: tuple[int, int], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    Hgad(**LIGHT, pre_processor=PreProcessor(Compose([Resize((64, 64)), CenterCrop(size), SCALED])))
    assert ("images of (48, 40), but image_size is (32, 32)" in caplog.text) == told


def test_cropping_before_resizing_is_refused(tmp_path: Path) -> None:
    """The datamodules resize first, and then the crop is one of the resized image; not so in a prediction of files."""
    trees.mvtec_class(tmp_path / "bolt")
    cropped = PreProcessor(Compose([Compose([CenterCrop(24)]), SCALED, Resize((32, 32))]))
    for datamodule in (MultiClass(root=tmp_path, num_workers=0), MVTecAD(tmp_path, "bolt", num_workers=0)):
        with pytest.raises(ValueError, match="pre_processor: CenterCrop comes before Resize, but anomalib's datamod"):
            engine(tmp_path / "run").fit(Hgad(**LIGHT, pre_processor=cropped), datamodule=datamodule)


@pytest.mark.parametrize(
    "transform",
    [
        None,
        CenterCrop(24),
        Compose([SCALED, Resize((32, 32))]),
        Compose([Resize((64, 64)), CenterCrop(48), Resize(32)]),
    ],
    ids=["none", "no resizing", "pixels first", "resized twice"],
)
def test_pre_processors_that_a_test_and_a_prediction_apply_alike(transform: Transform | None, tmp_path: Path) -> None:
    check_resized_first(transform, MVTecAD(tmp_path))

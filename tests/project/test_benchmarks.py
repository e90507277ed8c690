# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The benchmarks run, say what they measured, and measure what they say; their figures are not judged here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from anomalib_hgad.models.hgad.flows import ConditionalFlow
from anomalib_hgad.models.hgad.loss import hgad_losses
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture
from tests.benchmarks import (
    closed_form,
    convergence,
    defaults,
    image_sets,
    images,
    measure,
    models,
    pictures,
    run,
    transfer,
)
from tests.benchmarks.literal import literal_latents, literal_loss
from tests.helpers import browser

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that take no time."""
    for name, value in {"DIM": 6, "CONDITION_DIM": 8, "BLOCKS": 2, "GRIDS": (4, 2), "BATCH": 2}.items():
        monkeypatch.setattr(models, name, value)
    monkeypatch.setattr(images, "CLASSES", ("bolt",))
    monkeypatch.setattr(images, "IMAGES_OF_CLASS", 2)
    monkeypatch.setattr(images, "FLOWS_OF_CACHE", {"2 blocks": {"coupling_blocks": 2, "condition_dim": 8}})
    monkeypatch.setattr(images, "WORKERS", (0,))
    monkeypatch.setattr(images, "SIZES", (32, 64))
    monkeypatch.setattr(images, "BACKBONE_OF_CACHE", {"backbone": "resnet18", "levels": {"layer2": [1.0, 0.5, 0.25]}})
    for name, value in {"BATCH": 2, "SIZE": 64, "CLASSES": (1, 5, 6)}.items():
        monkeypatch.setattr(closed_form, name, value)
    monkeypatch.delenv("HGAD_TEST_DATA", raising=False)
    for name, value in {"IMAGES_OF_CLASS": 2, "KNOWN_PRODUCTS": 2, "ADDED_IMAGES": 2, "ADDED_CLASSES": 2}.items():
        monkeypatch.setattr(closed_form, name, value)
    monkeypatch.setattr(measure, "REPEATS", 1)


@pytest.mark.slow
@pytest.mark.nightly
def test_command_prints_tables_and_writes_json(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    run.main(["--json", str(file)])
    figures = json.loads(file.read_text())
    assert list(figures) == list(run.SECTIONS)
    printed = capsys.readouterr().out
    for name, section in figures.items():
        assert f"## {name}: {section['what']}" in printed
        assert section["made_with"]["torch"] == torch.__version__
        for values in (section["ratios"], section["medians"]):
            assert values
            assert all(value >= 0 for value in values.values())


@pytest.mark.slow
@pytest.mark.nightly
def test_sections_can_be_chosen(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    run.main(["--only", "roofline,flow", "--json", str(file)])
    assert list(json.loads(file.read_text())) == ["flow", "roofline"]
    with pytest.raises(SystemExit):
        run.main(["--only", "step,speed"])
    assert "no benchmark speed; there are flow, step" in capsys.readouterr().err


def test_literal_loss_is_that_of_the_package() -> None:
    """Eq. 11: what is compared in time computes the same number."""
    flow, prior = ConditionalFlow(6, 2, 8).double(), HierarchicalGaussianMixture(3, 4, 6).double()
    for parameter in prior.parameters():
        nn.init.normal_(parameter)
    features, y = torch.randn(3, 6, 2, 3).double(), torch.tensor([2, 0, 1])
    latents = flow(features)
    losses = hgad_losses(prior, latents.z, latents.log_det, y)
    expected = losses.inter + 100 * losses.mutual_information + losses.entropy + losses.intra + losses.likelihood
    actual = literal_loss(prior, *literal_latents(flow, features), y.repeat_interleave(6))
    assert actual.item() == pytest.approx(expected.item(), rel=1e-9)


def test_peak_memory_is_the_largest_sum_at_one_time() -> None:
    """4 MB and 4 MB at once, then one is freed before another 4 MB."""

    def function() -> torch.Tensor:
        first = torch.zeros(1000, 1000)
        second = first + 1
        del first
        return second * 2

    assert measure.peak_megabytes(function) == pytest.approx(8, abs=0.1)


@pytest.mark.slow
@pytest.mark.nightly
def test_convergence_compares_variants(
    few_shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On real images, small: every variant trains, and the criterion is in nats per dimension."""
    short = {
        name: convergence.Variant(epochs=1, features=name, block_scaling=True, positions=0.5)
        for name in ("literal", "whitened")
    }
    monkeypatch.setattr(convergence, "VARIANTS", short)
    file = tmp_path / "convergence.json"
    weights = few_shared / "weights/resnet18_timm_stem_l123.safetensors"
    arguments = f"--data {few_shared / 'data'} --weights {weights} --seeds 0 --image_size 64 --coupling_blocks 2"
    convergence.main([*arguments.split(), "--json", str(file)])
    results = json.loads(file.read_text())
    assert list(results) == list(short)
    of_variants = [result["runs"][0] for result in results.values()]
    assert of_variants[0]["held_out_log_likelihood"] != of_variants[1]["held_out_log_likelihood"]
    assert all(0 < of_variant["image_AUROC"] < 100 for of_variant in of_variants)
    assert "| whitened | 1 |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.nightly
def test_settings_are_judged_without_test_images(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On real images, small: two settings with features of their own, and every class has its figures."""
    file = tmp_path / "transfer.json"
    weights = shared_data / "weights/resnet18_timm_stem_l123.safetensors"
    arguments = f"--data {shared_data / 'data'} --weights {weights} --seeds 0 --epochs 1 --image_size 64"
    arguments += " --coupling_blocks 2 --settings default one_scale"
    transfer.main([*arguments.split(), "--json", str(file)])
    results = json.loads(file.read_text())
    first, second = (results[name]["runs"][0] for name in ("default", "one_scale"))
    assert first["synthetic"] != second["synthetic"]
    assert all(0 < image < 100 and 0 < pixel < 100 for image, pixel in first["synthetic"].values())
    assert {name for name, (_, pixel) in first["test"].items() if pixel is None} == {"aws_alien"}
    assert "| one_scale |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.nightly
def test_defaults_are_judged_without_test_images(
    few_shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On real images, small: two settings with features of their own, on both kinds of anomalies."""
    monkeypatch.setattr(image_sets, "HELD_OUT", 0.4)
    file = tmp_path / "defaults.json"
    weights = few_shared / "weights/resnet18_timm_stem_l123.safetensors"
    arguments = f"--data {few_shared / 'data'} --weights {weights} --image_size 64 --settings default layer_3"
    defaults.main([*arguments.split(), "--json", str(file)])
    results = json.loads(file.read_text())
    assert list(results) == ["default", "layer_3"]
    for part in ("perlin", "patches", "test"):
        first, second = (results[name][part] for name in results)
        assert first != second
        assert all(0 <= image <= 100 for image, _ in first.values())
    assert "| layer_3 |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no chromium")
def test_pictures_show_the_page_on_a_screen_and_on_a_phone(tmp_path: Path) -> None:
    """The page is green where it is wide, else red; far down, in the last column of a phone, it ends in blue."""
    page = """<!doctype html><html><style>body { margin: 0; background: #f00; height: 4500px; }
    @media (min-width: 1000px) { body { background: #0f0; } } div { position: absolute; top: 4400px; height: 100px;
    width: 100%; background: #00f; }</style><body><div></div></body></html>"""
    pictures.desktop_picture(page, tmp_path / "report.jpg")
    pictures.phone_picture(page, tmp_path / "phone.jpg")
    screen, phone = (Image.open(tmp_path / name) for name in ("report.jpg", "phone.jpg"))
    assert screen.size == pictures.DESKTOP
    assert phone.height == pictures.PHONE[1]
    assert screen.getpixel((640, 1000)) == pytest.approx((0, 255, 0), abs=8)
    assert phone.getpixel((180, 600)) == pytest.approx((255, 0, 0), abs=8)
    assert phone.getpixel((phone.width - 180, 850)) == pytest.approx((0, 0, 255), abs=8)

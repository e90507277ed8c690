# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Every command and Python example of the README and the docs runs as it stands, on tiny data, with a light model."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import yaml
from anomalib.cli import AnomalibCLI
from safetensors.torch import load_file

from anomalib_hgad import Hgad, UniAd, cli
from anomalib_hgad.data import pseudo_labels
from anomalib_hgad.demo import __main__ as demo
from anomalib_hgad.demo import distill
from anomalib_hgad.models.hgad.flows import FAMILIES
from tests.benchmarks import (
    added_products,
    cold_start,
    convergence,
    defaults,
    deployment,
    evidence,
    gpu,
    int8,
    known_defects,
    layers,
    measure,
    models_figure,
    processes,
    scores,
    transfer,
)
from tests.benchmarks import run as benchmarks
from tests.benchmarks import watch as watch_benchmark
from tests.helpers import trees
from tests.helpers.benchmark_runs import keep_runs_in_this_process
from tests.helpers.commands import LIGHT_FLAGS
from tests.helpers.light import LIGHT, LIGHT_FLOW_ARGUMENTS, LIGHT_UNIAD
from tests.helpers.pages import PAGES
from tests.helpers.paths import ROOT

FOR_THE_NIGHT = {
    *("data", "defects", "demo", "deployment", "flows", "leaderboard", "own_products", "performance", "products"),
    *("report", "results", "threshold", "uniad", "watch"),
}
"""Pages whose commands are benchmarks, many trainings or many exports."""

EPOCH = [
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.check_val_every_n_epoch=1",
]
SMALL = ["--image_size=64", "--coupling_blocks=2", "--epochs=1"]
BENCHMARKS = {
    "tests/benchmarks/run.py": (benchmarks.main, ["--only=roofline"]),
    "tests/benchmarks/added_products.py": (
        added_products.main,
        ["--counts", "3", "0", "--draws=1", "--epochs=1", SMALL[0]],
    ),
    "tests/benchmarks/cold_start.py": (cold_start.main, []),
    "tests/benchmarks/convergence.py": (convergence.main, ["--variants=quarter", "--seeds=0", *SMALL[:2]]),
    "tests/benchmarks/defaults.py": (defaults.main, ["--settings=default", SMALL[0]]),
    "tests/benchmarks/deployment.py": (deployment.main, []),
    "tests/benchmarks/evidence.py": (evidence.main, ["--only=look_alikes", *SMALL]),
    "tests/benchmarks/gpu.py": (gpu.main, ["--cut", "--only", "scores"]),
    "tests/benchmarks/int8.py": (int8.main, []),
    "tests/benchmarks/known_defects.py": (known_defects.main, ["--train=4", "--per_kind=2", "--draws=1", SMALL[0]]),
    "tests/benchmarks/layers.py": (layers.main, []),
    "tests/benchmarks/models_figure.py": (models_figure.main, []),
    "tests/benchmarks/processes.py": (processes.main, ["--images=4", "--image_size=64", "--epochs=2"]),
    "tests/benchmarks/scores.py": (scores.main, ["--seeds=0", *SMALL]),
    "tests/benchmarks/watch.py": (watch_benchmark.main, []),
    "tests/benchmarks/transfer.py": (transfer.main, ["--settings=default", "--seeds=0", *SMALL]),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder with all data that the pages name, and models that are light by default."""
    keep_runs_in_this_process(monkeypatch)
    if "HGAD_TEST_DATA" in os.environ:
        monkeypatch.setenv("HGAD_TEST_DATA", str(request.getfixturevalue("few_shared")))
    for category in ("bottle", "cable"):
        trees.mvtec_class(tmp_path / "datasets/MVTecAD" / category, train=2)
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "datasets/products" / name, train=8, good=1, bad=1)
        trees.write_image(tmp_path / "datasets/references" / name / "1.png")
        trees.folder_class(tmp_path / "datasets/parts" / name)
        for kind in ("crack", "rust"):
            trees.write_image(tmp_path / "datasets/known" / name / kind / "1.png", defect=True)
    trees.mvtec_class(tmp_path / "datasets/new/washer", train=6, good=1, bad=1, mode="1")
    for name in ("bolt", "nut", "washer"):
        trees.mvtec_class(tmp_path / "datasets/all" / name, train=8, good=1, bad=1)
    trees.visa_class(tmp_path / "datasets/visa", "candle")
    trees.btech_class(tmp_path / "datasets/BTech", "01")
    trees.mvtec_3d_class(tmp_path / "datasets/MVTec3D", "bagel")
    trees.cifar10(tmp_path / "datasets", monkeypatch)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(ROOT / "docs/cpp", tmp_path / "docs/cpp")
    for config in (tmp_path / "configs").glob("*.yaml"):  # what a config says beats the defaults, which are light here
        if config.stem == "hgad_offline":  # light as it is, with weights that are here
            continue
        config.write_text(
            re.sub(
                r"\n    (flow: semantic|(backbone|layers|levels|image_size|train_batch_size):).*",
                "",
                config.read_text(),
            )
        )
    of_resnet18 = any("/weights/resnet18" in command for command in commands(request.node.callspec.params["page"]))
    backbone = "resnet18" if of_resnet18 else LIGHT["backbone"]
    for constructed, light in (
        # What the pages leave out is what users get: the kind of model stays that of the defaults.
        (
            Hgad,
            {"backbone": backbone, "levels": {"layer2": [1.0]}}
            | {name: LIGHT[name] for name in ("image_size", "pre_trained")},
        ),
        (UniAd, LIGHT_UNIAD),
        *((family, light) for name, family in FAMILIES.items() if (light := LIGHT_FLOW_ARGUMENTS[name])),
    ):
        initializer = constructed.__init__
        names = initializer.__code__.co_varnames[: initializer.__code__.co_argcount][-len(initializer.__defaults__) :]
        defaults = dict(zip(names, initializer.__defaults__, strict=True)) | light
        monkeypatch.setattr(initializer, "__defaults__", tuple(defaults[name] for name in names))
    monkeypatch.setattr(pseudo_labels, "PyramidEncoder", partial(pseudo_labels.PyramidEncoder, pre_trained=False))
    monkeypatch.setattr(demo, "write_demo_dataset", partial(demo.write_demo_dataset, train=4, good=2, per_kind=1))
    monkeypatch.setattr(measure, "REPEATS", 1)
    monkeypatch.setattr(cold_start, "REPEATS", 1)
    monkeypatch.setattr(watch_benchmark, "REPEATS", 1)
    monkeypatch.setattr(deployment, "COMPRESSIONS", {"OpenVINO FP32": None})
    monkeypatch.setattr(int8, "FORMS", {"INT8_PTQ, one size": True})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> None:
    shared = os.environ.get("HGAD_TEST_DATA")
    if "$HGAD_TEST_DATA" in command and shared is None:
        pytest.skip("HGAD_TEST_DATA names no folder with real images and weights")
    if command.startswith(("cmake ", "build/")):
        run_in_a_shell(command)
        return
    program, *arguments = shlex.split(os.path.expandvars(command))
    if program.startswith("MASTER_ADDR="):
        run_on_two_nodes(arguments)
    elif program == "anomalib":
        AnomalibCLI([*arguments, *in_small(arguments, "$HGAD_TEST_DATA" in command)])
    elif program == "anomalib-hgad":
        assert cli.main([*arguments, *(a_cut_of(arguments) if arguments[0] == "benchmark" else [])]) == 0
    elif "anomalib_hgad.demo.distill" in arguments:
        distill.main([*arguments[2:], "--output=made.safetensors", "--steps=2", "--pool_size=40"])
        shipped, made = load_file(ROOT / "anomalib_hgad/demo/backbone.safetensors"), load_file("made.safetensors")
        assert {name: made[name].shape for name in made} == {name: shipped[name].shape for name in shipped}
    elif "anomalib_hgad.demo" in arguments:
        engine = demo.main([])
        # Of five products two good ones and one of each of three kinds of defect, see the fixture.
        assert len(list(Path(engine.trainer.default_root_dir, "images").rglob("*.png"))) == 25
    elif arguments[0] in BENCHMARKS:
        main, light = BENCHMARKS[arguments[0]]
        main([*arguments[1:], *light])
        assert Path(arguments[-1]).is_file()  # every such command ends with the file that it writes
    elif "pytest" in arguments:
        assert "README.md" in (ROOT / ".ci/run").read_text()  # the gate takes this very command from there
    else:
        pytest.fail(f"No test runs the command {command!r}.")


def run_in_a_shell(command: str) -> None:
    """A command of a compiler, or of what it has made."""
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("no cmake and C++ compiler to build the programs with")
    python = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{python}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], env=environment, check=True)


def in_small(arguments: list[str], on_real_images: bool) -> list[str]:
    """What makes a command of anomalib short."""
    small = {"train": EPOCH, "export": []}.get(arguments[0], EPOCH[1:])
    if on_real_images or "--model.image_size" in arguments:
        small = [*small, "--model.image_size=64"]
    if "--model.flow_arguments.coupling_blocks" in arguments:
        small = [*small, "--model.flow_arguments.coupling_blocks=2"]
    if {"MultiClass", "Cifar10", "--config"} & set(arguments):
        small = [*small, "--data.num_workers=0"]
    return small


def a_cut_of(arguments: list[str]) -> list[str]:
    """The first row of a benchmark, on two classes, in small."""
    rows = yaml.safe_load(Path(arguments[arguments.index("--config") + 1]).read_text())["models"]
    small = ["--max_epochs=1", "--image_size=64", "--seeds=[0]"]
    return [*small, "--data.categories=[aws_cookie,mvtec_hazelnut]", f"--only=[{next(iter(rows))}]"]


def run_on_two_nodes(arguments: list[str]) -> None:
    """The command once for each node, with one process each on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings, (program, *flags) = arguments[:2], arguments[2:]
    assert [setting.partition("=")[0] for setting in settings] == ["MASTER_PORT", "NODE_RANK"]
    light = [*LIGHT_FLAGS, *EPOCH, "--trainer.devices=1", "--data.num_workers=0"]
    nodes = [
        subprocess.Popen(
            [Path(sys.executable).with_name(program), *flags, *light],
            env=os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    printed = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(printed)
    assert "MEMBER: 2/2" in printed[1]


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.nightly] if page.stem in FOR_THE_NIGHT else [])
        for page in PAGES
        if commands(page) or blocks(page, "python")
    ],
)
def test_commands_and_python_run(page: Path, folder: Path) -> None:
    """The commands, then the Python, which may use what they made."""
    for command in commands(page):
        run(command)
    with mock.patch.dict(FAMILIES):  # a page registers a family of its own
        for block in blocks(page, "python"):
            light = block.replace("max_epochs=100", "max_epochs=1, accelerator='cpu', enable_progress_bar=False")
            exec(compile(light, str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The command line of anomalib: how to run it, and flags that make its runs short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from anomalib.cli import AnomalibCLI

from tests.helpers.light import LIGHT, LIGHT_UNIAD


def model_flags(settings: dict[str, Any]) -> list[str]:
    """Settings of a model on the command line."""
    return [
        f"--model.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()
    ]


LIGHT_FLAGS = model_flags(LIGHT)
LIGHT_FLAGS_BY_MODEL = {
    "Hgad": LIGHT_FLAGS,
    "UniAd": model_flags(LIGHT_UNIAD),
    "Cflow": model_flags({"backbone": "resnet18", "layers": ["layer3"], "pre_trained": False, "coupling_blocks": 1}),
    "Fastflow": model_flags({"backbone": "resnet18", "pre_trained": False, "flow_steps": 1}),
}
FAST_FLAGS = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def data_flags(root: Path) -> list[str]:
    """Classes in the subfolders of a folder, which are also validated on."""
    return ["--data=MultiClass", f"--data.root={root}", "--data.num_workers=0", "--data.val_split_mode=same_as_test"]


def command_line(*arguments: str | Path) -> str:
    """Run ``anomalib`` as a user does, in a process of its own, and return what it prints."""
    process = subprocess.run(
        [Path(sys.executable).with_name("anomalib"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


def in_process(*arguments: str | Path) -> AnomalibCLI:
    """Parse and run a command line in this process, which saves the import of anomalib."""
    return AnomalibCLI([str(argument) for argument in arguments])

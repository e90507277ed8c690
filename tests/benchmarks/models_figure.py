# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The figure of docs/results.md that compares models, drawn from the stored runs."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from matplotlib.figure import Figure

RUNS = Path(__file__).parents[2] / "docs/runs"

MODELS = {
    "Hgad, default": ("closed_form", "Hgad"),
    "Hgad, trained": ("unified_seeds", "Hgad_cflow"),
    "ReverseDistillation": ("unified", "ReverseDistillation"),
    "Dfm": ("unified_dfm", "Dfm"),
    "Patchcore": ("unified_seeds", "Patchcore"),
    "Fastflow": ("unified_seeds", "Fastflow"),
    "Padim": ("unified_seeds", "Padim"),
    "Cflow": ("unified_seeds", "Cflow"),
    "Stfpm": ("unified", "Stfpm"),
}
"""Models by the name that they have in the figure: the stored run, and the name there."""

METRICS = {"image_AUROC": "image AUROC, %", "pixel_AUROC": "pixel AUROC, %"}
MEAN, POOLED = "mean", "pooled"


def values(model: str, metric: str) -> tuple[float, float]:
    """Mean over the classes and value of the pooled images, both in percent and the mean of all seeds.

    Args:
        model: A name of ``MODELS``.
        metric: A name of ``METRICS``.

    Returns:
        The two.
    """
    run, name = MODELS[model]
    rows = json.loads((RUNS / f"{run}.json").read_text(encoding="utf-8"))["figures"]
    of_model = [row for row in rows if row["model"] == name]
    of_classes = [row[metric] for row in of_model if row["class"] not in {MEAN, POOLED} and row[metric] is not None]
    pooled = [row[metric] for row in of_model if row["class"] == POOLED]
    return 100 * statistics.mean(of_classes), 100 * statistics.mean(pooled)


def draw() -> Figure:
    """A panel for each metric, a line for each model from its mean to its pooled value."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for axes, (metric, label) in zip(panels, METRICS.items(), strict=True):
        for height, model in enumerate(reversed(MODELS)):
            mean, pooled = values(model, metric)
            color = "tab:blue" if model.startswith("Hgad") else "tab:gray"
            axes.plot([pooled, mean], [height, height], color=color, linewidth=2, zorder=1)
            axes.scatter(mean, height, color=color, s=45, zorder=2)
            axes.scatter(pooled, height, facecolor="white", edgecolor=color, s=45, zorder=2)
        axes.set_xlabel(label)
        axes.set_yticks(range(len(MODELS)), list(reversed(MODELS)))
        axes.grid(axis="x", alpha=0.3)
    marks = [
        panels[0].scatter([], [], color="black", s=45, label="mean over the classes"),
        panels[0].scatter([], [], facecolor="white", edgecolor="black", s=45, label="all images pooled"),
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=2, frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Draw the figure.

    Args:
        arguments: Those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    settings = parser.parse_args(arguments)
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    draw().savefig(settings.output, dpi=150)


if __name__ == "__main__":
    main()

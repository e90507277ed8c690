# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Figures of the report, as SVG that can stand in a page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_auc_score, roc_curve

from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.models.hgad.criterion import StateFigures, kept_state

NORMAL, ANOMALOUS = "#2f6f9f", "#d1495b"
FONT = ["DejaVu Sans"]
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a939b",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": "#4c555d",
    "ytick.color": "#4c555d",
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.hashsalt": "anomalib-hgad",  # the same figure is the same text
}


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, list[Markup]]]:
    """A figure to draw on, in inches; afterwards the list holds its SVG."""
    svg: list[Markup] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, svg
        text = io.StringIO()
        # A browser has the letters that the font lacks. Else letters are paths, the same on all machines.
        lacking = {ord(letter) for item in figure.findobj(Text) for letter in item.get_text()} - _letters_of_font()
        with mpl.rc_context({"svg.fonttype": "none"} if lacking else None), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(text, format="svg", dpi=160, metadata={"Date": None})
    # What comes before the element belongs to files. Names of classes are paths, or escaped: none is markup.
    svg.append(Markup(text.getvalue()[text.getvalue().index("<svg") :]))  # noqa: S704


def _letters_of_font() -> set[int]:
    """Letters that the font of the figures has, and line breaks, which it draws otherwise."""
    return set(get_font(findfont(FontProperties(family=FONT))).get_charmap()) | {ord("\n")}


def colours(count: int) -> list[tuple[float, ...]]:
    """Colours of the classes."""
    return [mpl.colormaps["tab20"](index % 20) for index in range(count)]


def score(row: Prediction) -> float:
    """Raw score of an image where it is known, else the post-processed one."""
    value = row.raw_score if row.raw_score is not None else row.pred_score
    return float("nan") if value is None else value


def histograms(panels: dict[str, tuple[np.ndarray, np.ndarray]], label: str, threshold: float | None) -> Markup:
    """Histograms of normal and anomalous values, a panel for each name.

    Args:
        panels: Normal and anomalous values of every panel.
        label: What the values are.
        threshold: Where a line is drawn.

    Returns:
        SVG.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with drawing(3.2 * columns, 2.1 * rows + 0.3) as (figure, svg):
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, (name, (normal, anomalous)) in zip(axes.flat, panels.items(), strict=False):
            _histogram(axis, normal, anomalous)
            axis.set_title(name)
            if threshold is not None:
                axis.axvline(threshold, color="#222", linewidth=1, linestyle="--")
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        figure.supxlabel(label, fontsize=9)
        axes.flat[0].legend(fontsize=8)
    return svg[0]


def _histogram(axis: Axes, normal: np.ndarray, anomalous: np.ndarray) -> None:
    values = np.concatenate([normal, anomalous])
    # A few far values would leave all others in one bar.
    low, high = np.quantile(values, [0.0, 0.98]) if len(values) else (0.0, 1.0)
    bins = np.linspace(low, high if high > low else low + 1, 31)
    for of_kind, colour, name in ((normal, NORMAL, "normal"), (anomalous, ANOMALOUS, "anomalous")):
        weights = np.full(len(of_kind), 1 / max(1, len(of_kind)))
        axis.hist(of_kind.clip(bins[0], bins[-1]), bins.tolist(), weights=weights, color=colour, alpha=0.6, label=name)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)


def roc_curves(groups: Mapping[str, Sequence[Prediction]]) -> Markup:
    """ROC curves of the image scores, a line for each group of images that has normal and anomalous ones.

    Args:
        groups: Decisions on the images of every group.

    Returns:
        SVG.
    """
    with drawing(5.6, 4.2) as (figure, svg):
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color="#c3c9ce", linewidth=1)
        for (name, rows), colour in zip(groups.items(), colours(len(groups)), strict=True):
            truth, scores = [bool(row.gt_label) for row in rows], [score(row) for row in rows]
            if len(set(truth)) == 2:
                false_positive, true_positive, _ = roc_curve(truth, scores)
                label = f"{name}  {100 * roc_auc_score(truth, scores):.1f}"
                axis.plot(false_positive, true_positive, color=colour, label=label)
        axis.set(xlabel="false positives", ylabel="true positives", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axis.legend(title="AUROC, %", fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg[0]


def latent_space(
    positions: np.ndarray, rows: Sequence[Prediction], centers: np.ndarray, class_names: Sequence[str]
) -> Markup:
    """Images and main class centres on a plane.

    Args:
        positions: Places of the images, shape (number, 2).
        rows: The images.
        centers: Places of the centres, shape (K, 2).
        class_names: Names of the K classes; one name for a single Gaussian's only centre.

    Returns:
        SVG.
    """
    with drawing(6.4, 4.4) as (figure, svg):
        axis = figure.subplots()
        for name, colour in zip(class_names, colours(len(class_names)), strict=True):
            for anomalous, marker in ((False, "o"), (True, "x")):
                chosen = [row.class_name in {name, None} and row.gt_label == anomalous for row in rows]
                axis.scatter(
                    positions[chosen, 0],
                    positions[chosen, 1],
                    color=colour,
                    marker=marker,
                    s=22,
                    alpha=0.8,
                    label=None if anomalous else name,
                )
        axis.scatter(
            centers[:, 0],
            centers[:, 1],
            marker="*",
            s=150,
            facecolor="white",
            edgecolor="#222",
            zorder=3,
            label="centre",
        )
        axis.scatter([], [], marker="x", color="#777", label="anomalous image")
        axis.set(xticks=[], yticks=[])
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg[0]


def confusion(rows: Sequence[Prediction], class_names: Sequence[str]) -> Markup:
    """How often an image of a class was taken for one of another.

    Args:
        rows: Decisions with true and inferred classes.
        class_names: Names of the classes.

    Returns:
        SVG.
    """
    names = list(class_names)
    inferred = [*names, *([UNKNOWN] if any(row.pred_class_name == UNKNOWN for row in rows) else [])]
    counts = np.zeros((len(names), len(inferred)), dtype=int)
    for row in rows:
        if row.class_name in names and row.pred_class_name in inferred:
            counts[names.index(row.class_name), inferred.index(row.pred_class_name)] += 1
    side = max(3.2, 0.42 * len(names) + 1.6)
    with drawing(side + 0.6, side) as (figure, svg):
        axis = figure.subplots()
        axis.imshow(counts / counts.sum(axis=1, keepdims=True).clip(min=1), cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(inferred)), inferred, rotation=40, ha="right", fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set(xlabel="inferred", ylabel="true")
        for (row_index, column), count in np.ndenumerate(counts):
            if count:
                dark = count > counts[row_index].sum() / 2
                colour = "white" if dark else "#222"
                axis.text(column, row_index, str(count), ha="center", va="center", color=colour, fontsize=8)
    return svg[0]


def training_course(course: Sequence[StateFigures]) -> Markup:
    """AUROCs of synthetic anomalies over a training that began as the closed form, and their mean, which chose a state.

    Args:
        course: Figures of the states, the first and the kept one among them.

    Returns:
        SVG.
    """
    epochs = [state.epoch for state in course]
    kept = kept_state(course)
    with drawing(5.6, 3.2) as (figure, svg):
        axis = figure.subplots()
        axis.plot(epochs, [100 * state.image_auroc for state in course], color=NORMAL, linewidth=1, label="images")
        axis.plot(epochs, [100 * state.pixel_auroc for state in course], color=ANOMALOUS, linewidth=1, label="pixels")
        axis.plot(epochs, [100 * state.criterion for state in course], color="#222", marker=".", label="mean of both")
        axis.axhline(100 * course[0].criterion, color="#c3c9ce", linewidth=1, linestyle="--", zorder=0)
        axis.scatter(
            [kept.epoch],
            [100 * kept.criterion],
            marker="o",
            s=80,
            facecolor="none",
            edgecolor="#222",
            zorder=3,
            label="kept",
        )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="epochs; 0 is the closed form", ylabel="AUROC, %")
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg[0]

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Figures of the report, as SVG for a page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from sklearn.metrics import roc_auc_score, roc_curve

from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.models.hgad.criterion import StateFigures, kept_state

NORMAL, ANOMALOUS, UNKNOWN_PRODUCT = "#2f6f9f", "#d1495b", "#8a6d1d"
INK, QUIET, LINE = "#20262b", "#5c6670", "#c3c9ce"
OF_PAGE = {
    INK: "var(--ink)",
    QUIET: "var(--quiet)",
    LINE: "var(--line)",
    NORMAL: "var(--normal)",
    ANOMALOUS: "var(--anomalous)",
    UNKNOWN_PRODUCT: "var(--unknown)",
}
"""Colours that the page has variables for: they differ on a dark ground."""

FONT = ["DejaVu Sans"]
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.hashsalt": "anomalib-hgad",  # the same figure is the same text
}

FAR = 5.0
"""Novelty above which the axis is logarithmic: that of another product may be a hundred times the limit."""


@contextmanager
def drawing(width: float, height: float, title: str) -> Iterator[tuple[Figure, list[Markup]]]:
    """A figure to draw on; afterwards the list holds its SVG.

    Args:
        width: In inches.
        height: Likewise.
        title: What the figure shows, for whoever does not see it.
    """
    svg: list[Markup] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, svg
        text = io.StringIO()
        # A browser has the letters that the font lacks. Otherwise letters are paths, the same on all machines.
        lacking = {ord(letter) for item in figure.findobj(Text) for letter in item.get_text()} - _letters_of_font()
        with mpl.rc_context({"svg.fonttype": "none"} if lacking else None), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(text, format="svg", dpi=160, metadata={"Date": None, "Title": title})
    drawn = text.getvalue()[text.getvalue().index("<svg") :].replace("<svg", '<svg role="img"', 1)
    for colour, variable in OF_PAGE.items():
        drawn = drawn.replace(f": {colour}", f": {variable}")
    # What comes before the element belongs to files. Names of classes are paths, or escaped: none is markup.
    svg.append(Markup(drawn))  # noqa: S704


def _letters_of_font() -> set[int]:
    """Letters that the font of the figures has, and line breaks, which it draws otherwise."""
    return set(get_font(findfont(FontProperties(family=FONT))).get_charmap()) | {ord("\n")}


def colours(count: int) -> list[tuple[float, ...]]:
    """Colours of the classes, strong ones first."""
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    return [mpl.colormaps["tab20"](order[index % 20]) for index in range(count)]


def score(row: Prediction) -> float:
    """Raw score of an image where it is known, else the post-processed one."""
    value = row.raw_score if row.raw_score is not None else row.pred_score
    return float("nan") if value is None else value


def histograms(
    panels: dict[str, tuple[np.ndarray, np.ndarray]], label: str, threshold: float | None, most_columns: int = 3
) -> Markup:
    """Histograms of normal and anomalous values, a panel for each name.

    Args:
        panels: Normal and anomalous values of every panel.
        label: What the values are.
        threshold: Where a line is drawn.
        most_columns: Maximum number of panels side by side.

    Returns:
        SVG.
    """
    columns = min(most_columns, len(panels))
    rows = -(-len(panels) // columns)
    title = f"Histograms of normal and anomalous values, {label}: {'; '.join(panels)}"
    with drawing(3.2 * columns, 2.1 * rows + 0.3, title) as (figure, svg):
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, (name, (normal, anomalous)) in zip(axes.flat, panels.items(), strict=False):
            _histogram(axis, normal, anomalous)
            axis.set_title(name)
            if threshold is not None:
                axis.axvline(threshold, color=INK, linewidth=1, linestyle="--")
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        figure.supxlabel(label, fontsize=9)
        axes.flat[0].legend(fontsize=8)
    return svg[0]


def _histogram(axis: Axes, normal: np.ndarray, anomalous: np.ndarray) -> None:
    values = np.concatenate([normal, anomalous])
    # A few outliers would leave all others in one bar.
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
    curves = []
    for (name, rows), colour in zip(groups.items(), colours(len(groups)), strict=True):
        truth, scores = [bool(row.gt_label) for row in rows], [score(row) for row in rows]
        if len(set(truth)) == 2:
            curves.append((f"{name}  {100 * roc_auc_score(truth, scores):.1f}", roc_curve(truth, scores), colour))
    title = f"ROC curves of the image scores, AUROC in percent: {'; '.join(label for label, *_ in curves)}"
    with drawing(5.6, 4.2, title) as (figure, svg):
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        for label, (false_positive, true_positive, _), colour in curves:
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
    title = f"Latent space: {len(rows)} test images and the main centres of {', '.join(class_names)}"
    with drawing(6.4, 4.4, title) as (figure, svg):
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
            edgecolor=INK,
            zorder=3,
            label="centre",
        )
        axis.scatter([], [], marker="x", color=QUIET, label="anomalous image")
        axis.set(xticks=[], yticks=[])
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg[0]


def confusion(rows: Sequence[Prediction], class_names: Sequence[str]) -> Markup:
    """Confusion matrix of the inferred classes.

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
    right = (f"{name} {counts[index, index]} of {counts[index].sum()}" for index, name in enumerate(names))
    title = f"Confusion of the inferred classes; inferred right: {'; '.join(right)}"
    with drawing(side + 0.6, side, title) as (figure, svg):
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
    """A training that started from the closed form: the criterion that chose its state, and the likelihood.

    On the left are AUROCs of synthetic anomalies and their mean, which is the criterion; on the right is the mean
    log-likelihood of held-out normal images.

    Args:
        course: Metrics of the states, including the first and the kept one.

    Returns:
        SVG.
    """
    epochs = [state.epoch for state in course]
    kept = kept_state(course)
    title = (
        f"Course of the training: mean AUROC {100 * course[0].criterion:.1f} % of the closed form, "
        f"{100 * kept.criterion:.1f} % of the state kept, after epoch {kept.epoch:g}"
    )
    with drawing(9.6, 3.2, title) as (figure, svg):
        left, right = figure.subplots(1, 2)
        left.plot(epochs, [100 * state.image_auroc for state in course], color=NORMAL, linewidth=1, label="images")
        left.plot(epochs, [100 * state.pixel_auroc for state in course], color=ANOMALOUS, linewidth=1, label="pixels")
        left.plot(epochs, [100 * state.criterion for state in course], color=INK, marker=".", label="mean of both")
        right.plot(epochs, [state.log_likelihood for state in course], color=INK, marker=".")
        left.set(ylabel="AUROC of synthetic anomalies, %")
        right.set(ylabel="log-likelihood of normal images,\nnats per dimension")
        for axis, at_start, at_kept in (
            (left, 100 * course[0].criterion, 100 * kept.criterion),
            (right, course[0].log_likelihood, kept.log_likelihood),
        ):
            axis.axhline(at_start, color=LINE, linewidth=1, linestyle="--", zorder=0)
            axis.scatter([kept.epoch], [at_kept], s=80, facecolor="none", edgecolor=INK, zorder=3, label="kept")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set(xlabel="epochs; 0 is the closed form")
        left.legend(fontsize=8)
    return svg[0]


def novelty_of_products(products: Mapping[str, Sequence[Prediction]], known: Collection[str]) -> Markup:
    """Novelty of every image, one row for each product.

    Args:
        products: Images of every product, whose novelty is known.
        known: Products that the model should know.

    Returns:
        SVG.
    """
    called = sum(row.called_unknown for rows in products.values() for row in rows)
    title = f"Novelty of the images of {', '.join(products)}: {called} images above the limit of 1"
    with drawing(7.2, 0.32 * len(products) + 1.1, title) as (figure, svg):
        axis = figure.subplots()
        for name, anomalous, colour, marker in (
            ("normal", False, NORMAL, "o"),
            ("anomalous", True, ANOMALOUS, "x"),
            ("unknown product", None, UNKNOWN_PRODUCT, "s"),
        ):
            drawn = [
                (row.novelty, line)
                for line, (product, rows) in enumerate(products.items())
                for row in rows
                if (bool(row.gt_label) if product in known else None) is anomalous
            ]
            if drawn:
                points = np.array(drawn)
                axis.scatter(points[:, 0], points[:, 1], color=colour, marker=marker, s=18, alpha=0.6, label=name)
        axis.axvline(1, color=INK, linewidth=1, linestyle="--")
        if max(row.novelty or 0.0 for rows in products.values() for row in rows) > FAR:
            axis.set_xscale("symlog", linthresh=1)
            axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.set_yticks(range(len(products)), list(products))
        axis.set(xlabel="novelty", ylim=(len(products) - 0.5, -0.5))
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg[0]

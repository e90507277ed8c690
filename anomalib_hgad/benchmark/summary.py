# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tables of a benchmark: means over the classes, with their standard deviation over the seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_hgad.common.files import write_json, write_text
from anomalib_hgad.data.reserved_names import MEAN, POOLED

METRICS = {
    "image_AUROC": "image AUROC",
    "image_AUPR": "image AP",
    "image_F1Max": "image F1-max",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AUPRO": "AUPRO",
    "pixel_AUPR": "pixel AP",
    "pixel_F1Max": "pixel F1-max",
    "ClassAccuracy": "class right",
    "class_given_image_AUROC": "image AUROC, class given",
    "class_given_pixel_AUROC": "pixel AUROC, class given",
}
"""Columns of metrics that are shares of 1, and their headings."""

COSTS = {
    "fit_seconds": ("training, s", 1.0, 0),
    "test_seconds": ("test and figures, s", 1.0, 0),
    "milliseconds_per_image": ("inference, ms per image", 1.0, 0),
    "peak_memory_bytes": ("peak memory, GB", 1e-9, 1),
    "parameters": ("parameters, M", 1e-6, 1),
}
"""Columns of costs, their headings, units and decimals."""

OF_CLASS = "class "
"""Prefix of the columns of classes."""

CALIBRATED = ", calibrated"
"""Suffix of a row whose scores MultiClassCalibration has brought to one scale."""

CALIBRATED_ROWS = (
    "Rows that end with «calibrated» are of the same training as those above them, tested with the scores and maps of "
    "each class on one scale, from normal validation images."
)

PROTOCOLS = {
    "unified": "One model for all classes.",
    "separate": "One model for each class; training and test are sums over the classes.",
}


@dataclass(frozen=True)
class Summary:
    """A benchmark's results.

    Attributes:
        metrics: A row for each model, seed and class, and for the mean over the classes and all images pooled.
        costs: A row for each model and seed.
        runs: Settings and versions of the runs.
        markdown: Tables for readers.
    """

    metrics: pd.DataFrame
    costs: pd.DataFrame
    runs: list[dict[str, Any]]
    markdown: str


def summarise(records: list[dict[str, Any]]) -> Summary:
    """Make the tables.

    Args:
        records: Records of finished runs of one benchmark.

    Returns:
        The tables; empty if there are no records.
    """
    metrics = pd.DataFrame(_metric_rows(records), columns=["model", "seed", "class", *METRICS])
    metrics = metrics.astype(dict.fromkeys(METRICS, float))
    of_classes = metrics[metrics["class"] != POOLED]
    means = of_classes.groupby(["model", "seed"], sort=False)[list(METRICS)].mean().reset_index()
    means.insert(2, "class", MEAN)
    metrics = pd.concat([of_classes, means, metrics[metrics["class"] == POOLED]], ignore_index=True)
    costs = pd.DataFrame(
        [{**_row_of(record), **{name: record[name] for name in COSTS}} for record in records],
        columns=["model", "seed", *COSTS],
    )
    # A benchmark of separate models has one record for each class.
    worst_or_sum = {name: "sum" if name in {"fit_seconds", "test_seconds"} else "max" for name in COSTS}
    costs = costs.groupby(["model", "seed"], sort=False).agg(worst_or_sum).reset_index()
    return Summary(metrics, costs, [_described(record) for record in records], _markdown(metrics, costs, records))


def write_summary(summary: Summary, folder: Path) -> None:
    """Write ``results.csv``, ``results.json`` and ``results.md``; an interrupted write leaves no incomplete file.

    Args:
        summary: The tables.
        folder: Folder of the benchmark.
    """
    write_text(folder / "results.csv", lambda file: summary.metrics.to_csv(file, index=False))
    tables = {
        name: json.loads(frame.to_json(orient="records"))
        for name, frame in (("figures", summary.metrics), ("costs", summary.costs))
    }
    write_json({"runs": summary.runs, **tables}, folder / "results.json")
    write_text(folder / "results.md", lambda file: file.write(summary.markdown))


def _row_of(record: dict[str, Any]) -> dict[str, Any]:
    return {"model": record["settings"]["name"], "seed": record["settings"]["seed"]}


def _metric_rows(records: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for record in records:
        row = _row_of(record)
        yield from _rows_of_test(record, row, record)
        if record["calibrated"] is not None:
            yield from _rows_of_test(record, row | {"model": f"{row['model']}{CALIBRATED}"}, record["calibrated"])


def _rows_of_test(record: dict[str, Any], row: dict[str, Any], tested: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for name, metrics in tested["classes"].items():
        yield {**row, "class": name, **metrics}
    if record["settings"]["protocol"]["setting"] == "unified":
        yield {**row, "class": POOLED, **tested["pooled"]}


def _described(record: dict[str, Any]) -> dict[str, Any]:
    """A run without file paths, which differ between machines."""
    settings = record["settings"]
    protocol = {key: settings["protocol"][key] for key in ("setting", "max_epochs", "image_size")}
    data = {key: value for key, value in settings["protocol"]["data"].items() if key != "root"}
    return {
        **{key: settings[key] for key in ("name", "choice", "seed", "only_class")},
        **protocol,
        "data": data,
        "local_weights": sorted(settings["protocol"]["backbone_weights"]),
        "epochs": record["epochs"],
        "versions": record["versions"],
    }


def _markdown(metrics: pd.DataFrame, costs: pd.DataFrame, records: list[dict[str, Any]]) -> str:
    if not records:
        return "No run is finished.\n"
    protocol = records[0]["settings"]["protocol"]
    seeds = sorted(metrics["seed"].unique().tolist())
    lines = [
        f"{PROTOCOLS[protocol['setting']]} {protocol['max_epochs']} epochs, the last one counts; seeds "
        f"{', '.join(map(str, seeds))}. In percent; mean{' ± standard deviation over the seeds' * (len(seeds) > 1)}. "
        "Scores are raw. The metrics of a model that infers the class of an image are those with the class inferred, "
        "unless a heading says given; other models do not use it.",
        *[CALIBRATED_ROWS] * any(record["calibrated"] is not None for record in records),
        "",
        *_table(metrics[metrics["class"] == MEAN], "Mean over the classes", METRICS),
    ]
    pooled = metrics[metrics["class"] == POOLED]
    if len(pooled):
        one_threshold = [name for name in METRICS if name.startswith(("image_", "pixel_"))]
        lines += _table(
            pooled, "All images pooled, regardless of class", {name: METRICS[name] for name in one_threshold}
        )
    by_class = metrics[~metrics["class"].isin([MEAN, POOLED])]
    for name in ("image_AUROC", "pixel_AUROC"):
        of_name = by_class.pivot_table(index=["model", "seed"], columns="class", values=name, sort=False)
        # A class may be called "model" or "seed".
        headings = {f"{OF_CLASS}{key}": key for key in of_name.columns}
        of_name = of_name.add_prefix(OF_CLASS).reset_index()
        lines += _table(of_name, f"{METRICS[name]} of each class", headings)
    lines += ["Costs", "", "| model | " + " | ".join(heading for heading, _, _ in COSTS.values()) + " |"]
    lines += ["|---|" + len(COSTS) * "---:|"]
    for model, of_model in costs.groupby("model", sort=False):
        cells = [f"{unit * of_model[name].mean():.{digits}f}" for name, (_, unit, digits) in COSTS.items()]
        lines.append(f"| {_text(model)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _table(rows: pd.DataFrame, title: str, headings: dict[str, str]) -> list[str]:
    """A Markdown table with a row for each model; columns without any value are left out."""
    columns = {key: heading for key, heading in headings.items() if rows[key].notna().any()}
    lines = [title, "", f"| model | {' | '.join(map(_text, columns.values()))} |", "|---|" + len(columns) * "---:|"]
    for model, of_model in rows.groupby("model", sort=False):
        cells = [_cell(100 * of_model[key].dropna()) for key in columns]
        lines.append(f"| {_text(model)} | {' | '.join(cells)} |")
    return [*lines, ""]


def _text(name: str) -> str:
    """A name as Markdown shows it unchanged: no mark-up, HTML or border of a cell."""
    return re.sub(r"[\\`*\[\]<>&|~]", r"\\\g<0>", name)


def _cell(values: pd.Series) -> str:
    if values.empty:
        return "–"
    spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"

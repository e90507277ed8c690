# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Time and memory of functions, side by side in one process."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

REPEATS = 5
CALLS_OF_A_TURN = 5

Function = Callable[[], Any]


def device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds_of(function: Function) -> float:
    """Seconds that one call takes."""
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def median_seconds(**functions: Function) -> dict[str, float]:
    """Median seconds of functions, called in turn, after one call of each that does not count."""
    for function in functions.values():
        function()
    return _medians(functions, lambda function: [seconds_of(function)])


def median_seconds_of_streams(**functions: Function) -> dict[str, float]:
    """Median seconds of a call among calls of the same function, as at a line; functions take turns.

    The first call of a turn does not count: the threads of the previous function are still awake, and its weights fill
    the caches.
    """
    return _medians(functions, lambda function: [seconds_of(function) for _ in range(CALLS_OF_A_TURN)][1:])


def _medians(functions: Mapping[str, Function], turn: Callable[[Function], list[float]]) -> dict[str, float]:
    """Median of the seconds of several turns of each function."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(REPEATS):
        for name, function in functions.items():
            times[name] += turn(function)
    return {name: statistics.median(values) for name, values in times.items()}


def mean_and_deviation(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and standard deviation if there are several values."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_megabytes(function: Function) -> float:
    """Largest amount of memory for tensors that a call has allocated at one time, beyond what was there before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / 1e6


def environment() -> dict[str, str | int]:
    """What a measurement was made with."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "repeats": REPEATS}

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Error messages for an installed version of anomalib that this package does not support."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

PLUGIN = "anomalib-hgad"
HOST = "anomalib"


def explain(error: ImportError) -> str | None:
    """Say which versions of anomalib work.

    Args:
        error: Raised by an import in this package.

    Returns:
        The message; ``None`` if the missing name is not one of anomalib.
    """
    if (error.name or "").partition(".")[0] != HOST:
        return None
    try:
        bounds = next(line for line in requires(PLUGIN) or [] if line.startswith(HOST))
    except (PackageNotFoundError, StopIteration):  # run from a folder that was never installed
        return None
    message = (
        f"{PLUGIN} {version(PLUGIN)} works with {bounds}; {_installed()}: {error}. Install a version within these "
    )
    return f"{message}bounds; if it already is, update both: pip install --upgrade {PLUGIN} '{bounds}'"


def _installed() -> str:
    """Say which version is installed, and if another module of its name hides it."""
    try:
        said = f"{HOST} {version(HOST)} is installed"
    except PackageNotFoundError:
        return f"{HOST} is not installed"
    place = Path(str(distribution(HOST).locate_file(HOST)))
    file = getattr(sys.modules.get(HOST), "__file__", None)
    if file is not None and Path(file).resolve().parent != place.resolve():
        said += f", but {file} is imported (rename it if it is something else)"
    return said


@contextmanager
def explain_missing_names() -> Iterator[None]:
    """Make an import that fails because anomalib lacks a name say which versions have it.

    Raises:
        ImportError: The same error with the versions in its message.
    """
    try:
        yield
    except ImportError as error:
        if (message := explain(error)) is None:
            raise
        raise ImportError(message, name=error.name, path=error.path) from error

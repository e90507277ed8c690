# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Package versions, to store in files."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages by name.

    Args:
        packages: Distribution names.

    Returns:
        The versions, in the order of the names.

    Raises:
        PackageNotFoundError: If a package is not installed.
    """
    return {package: version(package) for package in packages}

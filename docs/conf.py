# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Settings of Sphinx: ``sphinx-build -W docs build/site``."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
# The package of this checkout, and the extension beside this file.
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

import anomalib_hgad  # noqa: E402 - from the path above

project = "anomalib-hgad"
author = "The anomalib-hgad authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name
version = release = anomalib_hgad.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["cpp", "runs"]
html_theme = "furo"
html_title = f"anomalib-hgad {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
# The anchors that GitHub gives headings, for links to work in both places.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Classes of the libraries that the names derive from have pages of their own, which are out of reach here.
suppress_warnings = ["ref.python"]

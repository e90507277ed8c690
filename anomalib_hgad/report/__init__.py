# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Report pages: a test of Hgad as one HTML page, ``anomalib-hgad report``.

``run_files`` reads the files of a training and its test, ``latents`` samples latents of the model, ``figures`` and
``examples`` draw, ``page`` fills ``page.html``, and ``command`` writes it. ``monitor`` has the page on a production
line over time.
"""

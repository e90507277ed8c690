# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pages on what models have said: a test of Hgad as one HTML page, ``anomalib-hgad report``.

``run_files`` reads what a training and its test have left, ``latents`` looks into the model, ``figures`` and
``examples`` draw, ``page`` puts it all on ``page.html``, and ``command`` writes it. ``monitor`` has the page on a line
over time.
"""

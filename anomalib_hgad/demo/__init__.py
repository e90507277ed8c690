# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A demo that needs no download: drawn pictures of five products and a small backbone."""

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of anomalib_hgad."""

import sys

# OpenVINO sends a message to its makers when it is imported: a thread forks a process for it. A process that another
# thread forks meanwhile, as the tests that kill runs do, inherits locks of imports that nobody releases, and waits for
# ever.
sys.modules["openvino_telemetry"] = None

# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The stack on which a process handles signals.

Every CPU plugin of OpenVINO that is loaded gives the thread a stack of its own, and puts back the one before when it is
unloaded. Of two that are unloaded in the order in which they were loaded, the second puts back that of the first, which
is gone: the next signal that Python handles, as of a child process that ends, is then the end of the process, without a
word. OpenVINO 2026.4 does so.
"""

from __future__ import annotations

import ctypes
import sys

SIZE = 1 << 16


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_memory = ctypes.create_string_buffer(SIZE)


def take_own_signal_stack() -> None:
    """Handle the signals of this thread on memory that stays."""
    if sys.platform == "linux":
        stack = _Stack(ctypes.addressof(_memory), 0, SIZE)
        ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)

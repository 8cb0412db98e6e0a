"""What holds for every test of the tree."""

from __future__ import annotations

import signal

# A shell's background job ignores Ctrl-C and hands that down to every program it starts, and then nothing that a test
# interrupts would end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

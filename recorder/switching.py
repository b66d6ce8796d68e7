"""How long background work may keep the interpreter from the bot's thread.

A thread that computes hands the interpreter's lock over only when another has waited for it for
the switch interval: 5 ms by default, and the engine has three threads that may have it in turn. A
bot is heard to wait for so long, so while an engine is there, the interval is a tenth of that.
"""

from __future__ import annotations

import sys
import threading

SWITCH_SECONDS = 0.0005

_lock = threading.Lock()
_engines = 0
_before = 0.0


def shorten() -> None:
    """Have threads take turns quickly, until as many calls of `restore`."""
    global _engines, _before
    with _lock:
        if not _engines:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(_before, SWITCH_SECONDS))
        _engines += 1


def restore() -> None:
    """Undo one `shorten`; the last sets the interval that was, unless the program set another."""
    global _engines
    with _lock:
        _engines -= 1
        if not _engines and abs(sys.getswitchinterval() - SWITCH_SECONDS) < SWITCH_SECONDS / 10:
            sys.setswitchinterval(_before)

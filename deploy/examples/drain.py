"""Asks the bot on this machine to end: returns when no call is left, or its time is up.

Kubernetes runs it before it sends SIGTERM. By itself it imports nothing: a pod that ends has calls
to answer still.
"""

from __future__ import annotations

import os
import sys
import urllib.request


def drain(port: int) -> str:
    """Ask the bot to take no more calls and wait for those there are; return how many are left."""
    url = f"http://127.0.0.1:{port}/drain"
    with urllib.request.urlopen(url) as answer:  # takes as long as calls do
        return str(answer.read().decode())


if __name__ == "__main__":
    print(drain(int(os.environ.get("PORT", "8080"))), file=sys.stderr)

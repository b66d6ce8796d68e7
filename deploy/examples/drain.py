"""Asks the bot on this machine to end: returns when no call is left, or its time is up.

Kubernetes runs it before it sends SIGTERM. By itself it imports nothing: a pod that ends has calls
to answer still.
"""

from __future__ import annotations

import os
import sys
import tempfile
import urllib.request
from pathlib import Path

TOKEN_FILE = Path(tempfile.gettempdir()) / "bot-drain-token"
"""Where the bot says, to its own user alone, what proves that it is asked by it."""
TOKEN_HEADER = "X-Drain-Token"  # noqa: S105 - the name of a header


def drain(port: int, token: str) -> str:
    """Ask the bot to take no more calls and wait for those there are; return how many are left."""
    headers = {TOKEN_HEADER: token}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/drain", headers=headers)
    # Takes as long as calls do.
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - http, as it says above
        return str(answer.read().decode())


if __name__ == "__main__":
    file = Path(os.environ.get("DRAIN_TOKEN_FILE", TOKEN_FILE))
    print(drain(int(os.environ.get("PORT", "8080")), file.read_text()), file=sys.stderr)

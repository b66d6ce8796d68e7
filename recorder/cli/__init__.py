"""The command line: `recorder record`, `ls`, `show`, `demo`, `settings`."""

from recorder.cli.app import main

__all__ = ["main"]

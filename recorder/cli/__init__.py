"""The command line: `recorder record`, `ls`, `show`, `doctor`, `demo`, `settings`."""

from recorder.cli.app import main

__all__ = ["main"]

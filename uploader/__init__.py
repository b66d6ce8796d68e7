"""Moves bytes to object storage durably. Knows no audio and never imports `recorder`."""

"""Calls with ground truth: what was said and heard when, and how it reaches a recorder."""

"""The demo: a scripted call through a real Pipecat pipeline into an S3 server on this machine."""

from recorder.demo.run import Demo, DemoReport

__all__ = ["Demo", "DemoReport"]

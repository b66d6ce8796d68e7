"""What is done with complete recordings: by a function, by a worker, or over an archive."""

from recorder.postprocess.run import Processed, Processor, Verdict

__all__ = ["Processed", "Processor", "Verdict"]

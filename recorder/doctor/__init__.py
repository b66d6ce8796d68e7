"""`recorder doctor`: whether everything recording needs is there, found out by trying it."""

from recorder.doctor.check import Check, Status
from recorder.doctor.examination import Diagnosis, examine

__all__ = ["Check", "Diagnosis", "Status", "examine"]

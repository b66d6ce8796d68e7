"""What a refusal means for who asked: which permission is missing, or what else is wrong."""

from __future__ import annotations

from recorder.doctor import iam
from recorder.doctor.check import Check, Status
from uploader.errors import AccessDenied, StoreError

PERMISSION_CODES = frozenset({"AccessDenied", "AllAccessDisabled", "UnauthorizedAccess", "403"})
"""Refusals of valid credentials; others are refusals of the credentials themselves."""


def check_of_refusal(
    area: str, name: str, status: Status, error: StoreError, grant: iam.Grant, without: str
) -> Check:
    """Return the check of something that was refused.

    Args:
        area: Of the check.
        name: Of the check.
        status: How bad it is.
        error: The refusal.
        grant: The permission that it takes, if the refusal does not name another.
        without: What follows from it.
    """
    said = Exception.__str__(error)
    if not isinstance(error, AccessDenied) or error.code not in PERMISSION_CODES:
        return Check(area, name, status, f"{said}: {without}", error.hint)
    missing = iam.named_in(said) or grant
    found = f"{missing.action} is not allowed: {without}"
    if iam.explicitly_denied(said):
        fix = f"a policy denies {missing.action} explicitly, which no Allow overrides: {said}"
        return Check(area, name, status, found, fix)
    return Check(area, name, status, found, f"allow {missing.action}", (missing,))

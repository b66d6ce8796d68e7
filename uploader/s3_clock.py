"""The time that requests are signed with: this machine's, or the server's where they disagree.

Servers refuse requests whose time is more than 15 minutes off (Amazon S3 API Reference, "Error
responses", `RequestTimeTooSkewed`), and say their own time with the refusal (`Date`, RFC 9110,
section 6.6.1). Nobody may set the clock of a machine that records a call; signing does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from loguru import logger

SKEW_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})

_AGREE = timedelta(minutes=5)
"""Times that differ by less are no reason for a refusal."""
_SAME = timedelta(minutes=1)
"""A difference of less is not worth a word, or a correction."""


def system_utc() -> datetime:
    """Return the system's UTC time."""
    return datetime.now(UTC)


class SigningClock:
    """What the time is for a server.

    Args:
        utc: The system's time.

    Attributes:
        offset: How far the server's clock is ahead, as far as is known; zero if they agree.
    """

    def __init__(self, utc: Callable[[], datetime] = system_utc) -> None:
        self.offset = timedelta()
        self._utc = utc

    def now(self) -> datetime:
        """Return the time to sign with."""
        return self._utc() + self.offset

    def corrected(self, signed: datetime, headers: Mapping[str, str]) -> bool:
        """Learn from a refusal for the time; return whether the next request has a chance.

        Args:
            signed: About when the request was signed, by `now`.
            headers: The refusal's.
        """
        server = date_of(headers)
        if server is None or abs(server - signed) < _AGREE:
            return False
        before, offset = self.offset, server - self._utc()
        self.offset = offset if abs(offset) >= _SAME else timedelta()
        if abs(self.offset - before) >= _SAME:
            logger.warning("{}: requests are signed with the server's time", self.told())
        return True

    def told(self) -> str:
        """Return the offset in words."""
        seconds = round(self.offset.total_seconds())
        if not seconds:
            return "this machine's clock agrees with the server's"
        direction = "behind" if seconds > 0 else "ahead of"
        return f"this machine's clock is {abs(seconds)} s {direction} the server's"


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the time at which a server answered, if it says so."""
    try:
        date = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return None
    return None if date.tzinfo is None else date

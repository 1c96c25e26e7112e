"""Times as the topics write them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_LAST_SECOND = datetime.max.replace(microsecond=999_000, tzinfo=UTC).timestamp()


def now() -> str:
    """Return the time in the format of the topics: UTC, ISO 8601, milliseconds, ``Z``."""
    return instant(1_000 * time.time())


def instant(milliseconds: float) -> str:
    """Return a time in milliseconds since 1970, such as a record's timestamp, in that format.

    Producers may give any timestamp; one beyond the years 1970 to 9999 becomes the nearest in them.
    """
    found = datetime.fromtimestamp(min(max(0.0, milliseconds / 1_000), _LAST_SECOND), UTC)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")

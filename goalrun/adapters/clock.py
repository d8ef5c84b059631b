"""The real clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

TICK_SECONDS = 0.2
"""How often anything that waits looks up: well below the 10 Hz that idle supervision may cost."""


class SystemClock:
    """Time as the machine tells it; sleeping looks up for a request to pause or stop."""

    def __init__(self, poll: Callable[[], None]) -> None:
        self._poll = poll
        self._idle = 0.0

    def now(self) -> datetime:
        """The time of day in UTC."""
        return utc_now()

    def monotonic(self) -> float:
        """Seconds that never go back, without those that passed idly."""
        return time.monotonic() - self._idle

    def idle(self, seconds: float) -> None:
        """Let time pass that does not count; raises what ``poll`` raises."""
        began = time.monotonic()
        try:
            self.sleep(seconds)
        finally:
            self._idle += time.monotonic() - began

    def sleep(self, seconds: float) -> None:
        """Let time pass; raises what ``poll`` raises."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._poll()
            time.sleep(min(left, TICK_SECONDS))


def utc_now() -> datetime:
    """The time of day in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place

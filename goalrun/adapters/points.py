"""Named points at which a crash is tried: between a change of the world and its record.

Each is an audit event of Python's (``sys.audit``, PEP 578): it costs next to nothing while nobody listens, and nothing
that ships can listen. ``tests/crash`` kills the process at each of them in turn, and at Python's own events for
files and processes.
"""

import sys

EVENT = "goalrun.point"


def reached(point: str, *facts: object) -> None:
    """The process is at a point, whose name is the same in every run; ``facts`` are what a witness may want to know."""
    sys.audit(EVENT, point, *facts)

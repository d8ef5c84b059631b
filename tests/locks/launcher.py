"""Runs goalrun, and waits at the nth arrival at a named point until somebody opens its gate.

launcher.py POINT NTH FOLDER ARGUMENT... ; FOLDER holds two FIFOs: `there`, written to at the point, and `gate`. A
point is one of goalrun's own, or an audit event of Python's.
"""

import os
import sys
from pathlib import Path

from goalrun.adapters.points import EVENT
from goalrun.cli.app import main

point, left, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
sys.argv[:] = ["goalrun", *sys.argv[4:]]
OWNER = os.getpid()


def wait(event: str, arguments: tuple[object, ...]) -> None:
    """Hold the process, once."""
    global left  # noqa: PLW0603 - an audit hook has no other place
    if (arguments[0] if event == EVENT else event) != point or os.getpid() != OWNER:
        return
    left -= 1
    if left == 0:
        (folder / "there").write_text("there", "ascii")
        (folder / "gate").read_bytes()


sys.addaudithook(wait)
try:
    main()
finally:
    if left > 0:
        (folder / "there").write_text("never there", "ascii")

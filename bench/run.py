"""What goalrun costs, as ratios in one run: ``python bench/run.py [--quick] [PART …]``; see docs/performance.md.

Nothing is asserted: what falls short of its target is printed, with what else the machine did at the time.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import flows
import growth
import measure
import program
import turns
import workers

PARTS = {
    "turn": turns.run,
    "start": program.start,
    "capture": program.capture,
    "journal": program.journal,
    "flow": flows.run,
    "growth": growth.run,
    "fleet": workers.run,
}


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description="What goalrun costs, as ratios in one run.")
    options.add_argument("--quick", action="store_true", help="smaller, in a few minutes")
    options.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none is all")
    asked = options.parse_args()
    unknown = set(asked.parts) - set(PARTS)
    if unknown:
        options.error(f"no such part: {', '.join(sorted(unknown))}")
    for name in asked.parts or PARTS:
        measure.line(f"\n{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        with tempfile.TemporaryDirectory(prefix="goalrun-bench-") as scratch:
            PARTS[name](Path(scratch), quick=asked.quick)
    count = len(measure.SHORT)
    sys.stdout.write(f"\nshort of their targets: {count}\n" + "".join(f"  {text}\n" for text in measure.SHORT))


if __name__ == "__main__":
    main()

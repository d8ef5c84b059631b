"""What goalrun costs, as ratios in one run: ``python bench/run.py [--quick] [PART …]``."""

import argparse
import tempfile
from pathlib import Path

import turn


def turns(scratch: Path, *, quick: bool) -> None:
    for files in (200, 5000) if quick else (200, 5000, 80_000):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            turn.measure(Path(folder), files, (0, 10) if quick else (0, 10, 1000), 4 if quick else 6)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="goalrun-bench-") as scratch:
        turns(Path(scratch), quick=asked.quick)


if __name__ == "__main__":
    main()

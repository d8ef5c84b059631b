"""A storm as large as one likes: ``python tests/fleet/suite.py --goals 200 --kills 12 --stops 4 --heartbeat 8``.

With ``--cuts N`` workers are hosts of their own, whose network is cut for ``--cut`` seconds: for root, with ip(8).

Prints its history, and ends with 1 if something did not hold.
"""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fleet.hosts import network
from fleet.place import LOOPBACK, Place, server
from fleet.storm import Plan, Storm, namespaces

LONGEST = 2.0
"""Heartbeats until all goals of a worker that is gone are in other hands."""


def main() -> int:
    """Run one."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in Plan(200, 40, 4, 2, 12, 4, 5.0)._asdict().items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    plan = Plan(**vars(parser.parse_args()))
    with (
        tempfile.TemporaryDirectory(prefix="goalrun-storm-") as folder,
        network() if plan.cuts else nullcontext() as wires,
        server(wires.address if wires else LOOPBACK) as made,
    ):
        place = Place(Path(folder), made, f"{plan.heartbeat}s")
        try:
            history = Storm(place, plan, namespaces(), wires).run()
        finally:
            place.end()
        longest = max(history.takeovers, default=0.0)
        history.expect(longest <= LONGEST, f"a takeover took {longest:.2f} heartbeats")
        if history.wrong:
            for log in sorted(Path(folder).glob("worker-*/worker.log")):
                sys.stderr.write(f"{log.parent.name}\n{log.read_text(encoding='utf-8')}\n")
    sys.stdout.write("\n".join(history.lines) + "\n")
    sys.stdout.write(f"{len(history.wrong)} things did not hold\n")
    return 1 if history.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

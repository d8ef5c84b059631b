"""The program that runs one goal of the fleet: what ``goalrun run-detached`` does, with a journal that others can read.

The database's address comes in a file that no worker's agent can see, never in a command line or the environment.
"""

import json
import sys
from pathlib import Path

from goalrun.adapters.clock import SystemClock
from goalrun.adapters.control import FileControl
from goalrun.adapters.journal import replay
from goalrun.adapters.views import JOURNAL
from goalrun.core.events import GoalStopped
from goalrun.core.model import State
from goalrun.core.spec import Limits
from goalrun.errors import GoalrunError, Interrupted
from goalrun.fleet.journal import FleetJournal, Order
from goalrun.wiring.running import Running, SilentReporter, run_goal
from goalrun.wiring.session import open_session

ORDER = "fleet.json"


def _tell(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _run(goal: str) -> None:
    session = open_session()
    folder = session.home.folder(goal)
    order = Order.model_validate(json.loads((folder / ORDER).read_bytes()))
    opened: list[FleetJournal] = []

    def journal(path: Path, clock: SystemClock) -> FleetJournal:
        opened.append(FleetJournal(path, clock, order, _tell))
        return opened[-1]

    limits = Limits.model_validate_json(order.limits) if order.limits else None
    run_goal(session, goal, Running(SilentReporter(), _tell, limits, hint=order.hint, detached=True, journal=journal))
    gated = next((each.gated for each in opened if each.gated is not None), None)
    if gated is not None and gated.budget:
        last = journal(folder / JOURNAL, SystemClock(FileControl(folder).check))
        last.append(GoalStopped(state=State.BUDGET_EXCEEDED, detail=str(gated)), replay(folder / JOURNAL))
        last.close()


def main() -> int:
    """Run the goal that the command line names."""
    try:
        _run(sys.argv[1])
    except Interrupted as asked:
        _tell(f"goalrun: {asked}")
        return asked.exit_code
    except GoalrunError as failure:
        _tell(f"goalrun: {failure}" + (f"\n  try: {failure.hint}" if failure.hint else ""))
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One goal on one worker, from its claim to its end: cloned, rebuilt, run in a process of its own, delivered."""

import sys
from collections.abc import Callable, Container
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

from goalrun.adapters.clock import SystemClock, utc_now
from goalrun.adapters.clones import clones_of
from goalrun.adapters.control import FileControl
from goalrun.adapters.environment import path_for_checks
from goalrun.adapters.files import remove_tree, write_whole
from goalrun.adapters.home import Home
from goalrun.adapters.journal import replay, write_again
from goalrun.adapters.lock import held
from goalrun.adapters.process import Command, run
from goalrun.adapters.views import JOURNAL, RUN_LOCK
from goalrun.core.events import GoalCreated, Record
from goalrun.core.evidence import one_line
from goalrun.core.model import GoalState, State
from goalrun.core.spec import GoalSpec
from goalrun.errors import EnvironmentFailure, GitFailed, GoalrunError, Interrupted, UnknownGoal, UserError
from goalrun.fleet import clones, goals, objects
from goalrun.fleet.child import ORDER
from goalrun.fleet.database import URL_VARIABLE, Connection, Fleet, connect, patiently
from goalrun.fleet.goals import Mine
from goalrun.fleet.journal import Order
from goalrun.wiring.parts import open_store
from goalrun.wiring.session import Session

PUSHES = 3
"""Failures after which a branch that cannot be pushed is delivered as a bundle."""
LONGEST_SECONDS = 90 * 86_400.0
MOST_SAID = 1000
NO_QUOTA = "rate_limited"
T = TypeVar("T")
MakeSpec = Callable[[str, tuple[Path, str], str], GoalSpec]
"""From an id, a workspace and the text of a goal file to a goal."""


class Way(NamedTuple):
    """How a worker does its errands.

    Attributes:
        push: deliver as a branch; else as a bundle.
        make: makes a goal of what was submitted.
        tell: shows a line.
        leave: raises ``Interrupted`` once the goal is lost, or the worker has to go.
    """

    session: Session
    fleet: Fleet
    mirrors: clones.Mirrors
    push: bool
    make: MakeSpec
    tell: Callable[[str], None]
    leave: Callable[[], None]


class Errand:
    """A claimed goal, done in a thread."""

    def __init__(self, mine: Mine, way: Way) -> None:
        self.mine = mine
        self._way = way
        self._row = mine.row
        self._outcome: str | None = None
        self._folder = way.session.home.folder(mine.id)
        self._place = clones.place_of(way.session.home.path, mine.id, str(self._row["repo"]))

    def ask(self, verb: str) -> None:
        """Hand on what was asked of the goal."""
        with suppress(GoalrunError):
            if verb == "stop":
                FileControl(self._folder).ask("stop")
            elif verb == "pause":
                FileControl(self._folder).ask("pause")

    def run(self) -> None:
        """Do it, and say in the database what became of it."""
        try:
            self._do()
        except Interrupted as asked:
            # There is no database to tell; another worker takes the goal over.
            self._way.tell(f"{self.mine.id}: {asked}")

    def _do(self) -> None:
        mine = self.mine
        try:
            self._prepare()
            # An end that was recorded, but not seen to by a worker that is gone, is seen to now.
            if self._row["seq"] == self._row["resume_from"] or self._row["result"]["state"] == State.RUNNING.value:
                self._run()
            self._settle()
        except Interrupted as asked:
            why = f"given back: {asked}"
            self._say(lambda db: goals.give_back(db, mine, why))
        except (GoalrunError, OSError) as failure:
            hint = getattr(failure, "hint", "")
            # What git says comes from elsewhere.
            detail = one_line(f"{failure}; {hint}" if hint else str(failure), MOST_SAID)
            self._way.tell(f"{mine.id}: {detail}")
            # What a goal file is wrong about will not be right elsewhere.
            final = isinstance(failure, UserError) and not isinstance(failure, UnknownGoal)
            self._say(
                lambda db: (
                    goals.end(db, mine, "error", detail) if final else goals.give_back(db, mine, detail, failed=True)
                )
            )
        finally:
            with suppress(GoalrunError, OSError):
                clear(self._way.session.home, mine.id)

    def _say(self, what: Callable[[Connection], T]) -> T:
        def once() -> T:
            with connect(self._way.fleet.url, self._way.fleet.silent) as db:
                return what(db)

        return patiently(once, self._wait)

    def _wait(self, why: str) -> None:
        self._way.tell(f"{self.mine.id}: waiting for the database: {why}")
        SystemClock(self._way.leave).sleep(1.0)

    def _prepare(self) -> None:
        """The clone, the goal's folder and its store, as its last record needs them."""
        row, way = self._row, self._way
        with way.mirrors.of(row["repo"]) as mirror:
            base = way.mirrors.base(mirror, row["repo"], row["ref"], row["base"])
            clones.clone(mirror, base, row["ref"], self._place)
        if not row["base"]:
            self._say(
                lambda db: db.execute(
                    "UPDATE goal SET base = %s WHERE id = %s AND attempt = %s", [base, self.mine.id, self.mine.attempt]
                )
            )
            self._row = row = {**row, "base": base}
        state = self._adopt()
        order = Order(
            url=way.fleet.url,
            heartbeat=way.fleet.heartbeat,
            attempt=self.mine.attempt,
            hint=row["hint"],
            limits=row["limits"],
        )
        write_whole(self._folder / ORDER, order.model_dump_json())
        store = open_store(self._folder, state.spec)
        store.create()
        self._say(lambda db: objects.fetch(db, self.mine.id, self._folder, store.path))
        last = state.last_snapshot
        if last is not None:
            now = store.snapshot("before-takeover", last=False)
            store.check_out(now.tree, last.tree)

    def _adopt(self) -> GoalState:
        """The goal's folder with its journal, made anew from the database."""
        home, goal = self._way.session.home, self.mine.id
        remove_tree(home.unfinished(goal))
        if home.folder(goal).exists() and not home.remove(goal):
            raise EnvironmentFailure(f"goal {goal} still runs on this machine")
        found = self._say(lambda db: goals.records(db, goal))
        if found:
            first = found[0]
            if not isinstance(first.event, GoalCreated):
                raise EnvironmentFailure(f"the records of goal {goal} do not begin with its creation")
            spec = _moved(first.event.spec, self._place, self._way.session)
            found[0] = Record(seq=1, at=first.at, elapsed=first.elapsed, event=GoalCreated(spec=spec))
        else:
            spec = self._way.make(goal, (self._place, ""), self._row["file"])
            at = utc_now().isoformat(timespec="milliseconds")
            found = [Record(seq=1, at=at, event=GoalCreated(spec=spec))]
        home.begin(goal, self._place)
        # Held, so that nobody takes it for what a killed process left.
        with held(home.unfinished(goal) / RUN_LOCK, self._way.leave):
            write_again(home.unfinished(goal) / JOURNAL, found, SystemClock(lambda: None))
            home.appear(goal)
        return replay(home.folder(goal) / JOURNAL)

    def _run(self) -> None:
        hidden = {URL_VARIABLE, "PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE"}
        environment = {key: value for key, value in self._way.session.environment.items() if key not in hidden}
        command = Command(
            # -P: the current folder must not be able to offer modules.
            argv=(sys.executable, "-P", "-m", "goalrun.fleet.child", self.mine.id),
            cwd=Path("/"),
            env={**environment, "GOALRUN_HOME": str(self._way.session.home.path)},
            stdout=self._folder / "runner.log",
            timeout=LONGEST_SECONDS,
        )
        run(command, lambda _: None, self._way.leave)

    def _settle(self) -> None:
        """What the run came to, by the records that the database has."""
        mine = self.mine
        self._say(self._settled)
        if (state := self._outcome) is None:
            self._way.tell(f"{mine.id}: lost to another worker")
            return
        self._way.tell(f"{mine.id}: {state}")

    def _settled(self, db: Connection) -> None:
        mine = self.mine
        row = db.execute("SELECT * FROM goal WHERE id = %s", [mine.id]).fetchone()
        self._outcome = None
        if row is None or row["attempt"] != mine.attempt:
            return
        head = row["result"] or {}
        state, detail = head.get("state", ""), head.get("detail", "")
        self._outcome = state
        if state == State.ACHIEVED.value:
            self._deliver(db, detail)
        elif state == NO_QUOTA:
            goals.park(db, mine, self._quota_until(), detail)
        elif state == State.RUNNING.value or not head:
            until = goals.parked(db, row["account"])
            if until is not None:
                goals.park(db, mine, until, f"account {row['account']} waits for its provider")
                self._outcome = NO_QUOTA
            else:
                self._outcome = "given back"
                goals.give_back(db, mine, f"its run ended without an end: {one_line(self._last_line())}", failed=True)
        else:
            goals.end(db, mine, state, detail)

    def _quota_until(self) -> datetime:
        now = utc_now()
        found = [datetime.fromisoformat(until) for until in replay(self._folder / JOURNAL).limited.values() if until]
        return min((until for until in found if until > now), default=now + timedelta(minutes=1))

    def _last_line(self) -> str:
        log = self._folder / "runner.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return next(
            (line for line in reversed(lines) if line.startswith("goalrun: ")), lines[-1] if lines else "no word"
        )

    def _deliver(self, db: Connection, detail: str) -> None:
        """One branch, or a bundle of it; who has lost the goal delivers nothing."""
        row, mine = self._row, self.mine
        state = replay(self._folder / JOURNAL)
        if not state.turns:
            goals.end(db, mine, "achieved", detail, "nothing to deliver")
            return
        branch = f"goalrun/{mine.id}"
        store = self._folder / "store.git"
        at = row["created_at"].astimezone(UTC).isoformat(timespec="seconds")
        tree = state.turns[-1].outcome.snapshot.tree
        with self._way.mirrors.of(row["repo"]) as mirror:
            commit = clones.commit_of(mirror, store, tree, row["base"], mine.id, at)
            moved = self._way.mirrors.tip(mirror, row["repo"], row["ref"])
            if moved and moved != row["base"]:
                detail = f"{detail}; {row['ref']} has moved since from {row['base'][:12]} to {moved[:12]}"
            with db.transaction():
                self._hand_in(db, mirror, commit, branch, detail)

    def _hand_in(self, db: Connection, mirror: Path, commit: str, branch: str, detail: str) -> None:
        row, mine = self._row, self.mine
        # Held until it is done: nobody takes the goal over in between. If this process is stopped meanwhile, the server
        # lets go; whoever has the goal then pushes the same commit.
        held = db.execute("SELECT FROM goal WHERE id = %s AND attempt = %s FOR UPDATE", [mine.id, mine.attempt])
        if held.fetchone() is None:
            self._outcome = None
            return
        failed = self._pushed(db, mirror, commit, branch) if self._way.push else "this worker does not push"
        if failed and self._way.push and row["failures"] < PUSHES - 1:
            self._outcome = "given back"
            goals.give_back(db, mine, failed, failed=True)
            return
        delivered = self._bundled(db, mirror, commit, branch, failed) if failed else f"{branch} {commit}"
        goals.end(db, mine, "achieved", detail, delivered)

    def _bundled(self, db: Connection, mirror: Path, commit: str, branch: str, why: str) -> str:
        """Deliver a file; how it becomes the branch."""
        with clones.bundle(mirror, commit, self._row["base"], branch) as file:
            db.execute("DELETE FROM part WHERE goal = %s AND kind = %s", [self.mine.id, objects.BUNDLE])
            objects.put(db, self.mine.id, objects.BUNDLE, commit, file)
        return f"bundle of {commit} (goalrun fleet show {self.mine.id} --bundle FILE): {why}"

    def _pushed(self, db: Connection, mirror: Path, commit: str, branch: str) -> str:
        """Push; why it could not be, "" where it was. A push that has lost its transaction ends."""

        def stay() -> None:
            self._way.leave()
            # The server ends the transaction of a process that says nothing.
            db.execute("SELECT 1")

        try:
            self._way.mirrors._replace(poll=stay).push(mirror, self._row["repo"], commit, branch)
        except GitFailed as failure:
            return one_line(str(failure), MOST_SAID)
        return ""


def clear(home: Home, goal: str) -> None:
    """Nothing of a goal stays on a worker: the database has all of it."""
    remove_tree(clones_of(home.path) / goal)
    home.remove(goal)


def tidy(home: Home, db: Connection, running: Container[str]) -> None:
    """Clear what a worker that was killed left here: goals that nobody has under the number that they have."""
    for goal in home.ids():
        order = home.folder(goal) / ORDER
        if goal in running or not order.exists():
            continue
        attempt = Order.model_validate_json(order.read_bytes()).attempt
        found = db.execute(
            "SELECT FROM goal WHERE id = %s AND attempt = %s AND worker IS NOT NULL", [goal, attempt]
        ).fetchone()
        if found is None:
            clear(home, goal)


def _moved(spec: GoalSpec, place: Path, session: Session) -> GoalSpec:
    """A goal as another machine runs it: its workspace is elsewhere, and so are the programs of its checks."""
    path, _ = path_for_checks(session.environment.get("PATH", ""), place, spec.verification.deps)
    verification = spec.verification.but(path=path)
    return spec.but(workspace=str(place), verification=verification)

"""A goal's journal that another machine can go on from: no record is acted on before it is in the database too."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from goalrun.adapters.clock import SystemClock
from goalrun.adapters.journal import SqliteJournal, records
from goalrun.core import result
from goalrun.core.events import (
    BaseTaken,
    CallFinished,
    Event,
    Record,
    TurnInterrupted,
    TurnParked,
    TurnStarted,
    WorkerEnded,
    WorkerFinished,
)
from goalrun.core.model import NOTHING_SPENT, GoalState, Usage
from goalrun.core.replay import apply
from goalrun.core.value import Value
from goalrun.errors import Interrupted
from goalrun.fleet import goals, objects
from goalrun.fleet.database import LOST, Connection, connect, first_line

WITH_OBJECTS = (BaseTaken, TurnInterrupted, TurnParked, WorkerFinished, CallFinished)
WAIT_SECONDS = 1.0


class Order(Value):
    """What a worker tells the program that runs a goal.

    Attributes:
        url: of the database.
        heartbeat: seconds.
        attempt: the fencing token.
        limits: new ones, as JSON; "" to keep those that the goal has.
    """

    url: str
    heartbeat: float
    attempt: int
    hint: str = ""
    limits: str = ""


class Fenced(Interrupted):
    """Another machine has the goal: nothing more is written, and the workspace is left alone."""

    def __init__(self) -> None:
        super().__init__("leave", "another worker has this goal now")


class Gated(Interrupted):
    """No turn is begun now: a budget is spent, or the account waits for its provider. ``budget`` says which."""

    def __init__(self, reason: str, *, budget: bool) -> None:
        super().__init__("leave", reason)
        self.budget = budget


class Bill(NamedTuple):
    """What some records spent: what is known of it, and of how many nobody knows it."""

    usd: float = 0.0
    tokens: int = 0
    blind_usd: int = 0
    blind_tokens: int = 0

    def plus(self, usage: Usage) -> "Bill":
        """And what one more record spent."""
        return Bill(
            self.usd + (usage.usd or 0.0),
            self.tokens + (usage.total_tokens or 0),
            self.blind_usd + (usage.usd is None),
            self.blind_tokens + (usage.total_tokens is None),
        )


class FleetJournal(SqliteJournal):
    """The local journal, of which every record also goes to the database, with what it speaks of, before it counts.

    Args:
        path: the local file, with what the database has.
        clock: see ``SqliteJournal``; time without a database is not running time.
        order: which database, and the fencing token.
        tell: shows a line of progress.

    Attributes:
        gated: why no turn was begun; the loop takes it for a request to leave.
    """

    gated: Gated | None = None

    def __init__(self, path: Path, clock: SystemClock, order: Order, tell: Callable[[str], None]) -> None:
        super().__init__(path, clock)
        self._file, self._time = path, clock
        self._order, self._tell = order, tell
        self._goal = path.parent.name
        self._link: Connection | None = None
        self._refs: dict[str, str] = {}
        self._sent = 0
        self._state: GoalState | None = None
        self._patiently(self._begin)
        self._send()

    def append_all(self, events: Sequence[Event], state: GoalState | None) -> list[tuple[Record, GoalState]]:
        """See ``SqliteJournal``.

        Raises:
            Fenced: another machine has the goal.
            Gated: a turn was to begin, and must not now.
        """
        if any(isinstance(event, TurnStarted) for event in events):
            try:
                self._patiently(self._gate)
            except Gated as gated:
                self.gated = gated
                raise
        appended = super().append_all(events, state)
        # What a worker left is no snapshot yet, and only here: until it is, the database knows of no end.
        if not isinstance(events[-1], WorkerEnded):
            self._send()
        return appended

    def close(self) -> None:
        """Let the file and the connection go."""
        super().close()
        if self._link is not None:
            self._link.close()

    def _patiently(self, action: Callable[[Connection], None]) -> None:
        """Do something in the database, however long it is away; the goal can be stopped meanwhile."""
        told = False
        while True:
            try:
                if self._link is None:
                    self._link = connect(self._order.url, self._order.heartbeat)
                action(self._link)
            except LOST as failure:
                if self._link is not None:
                    with suppress(*LOST):
                        self._link.close()
                self._link = None
                if not told:
                    self._tell(f"waiting for the database: {first_line(failure)}")
                told = True
                self._time.idle(WAIT_SECONDS)
            else:
                return

    def _begin(self, db: Connection) -> None:
        row = self._fence(db)
        self._refs = objects.known_refs(db, self._goal)
        self._sent, self._state = 0, None
        for record in records(self._file):
            if record.seq > row["seq"]:
                break
            self._sent, self._state = record.seq, apply(self._state, record)

    def _fence(self, db: Connection, lock: str = "") -> dict[str, Any]:
        row = db.execute(f"SELECT * FROM goal WHERE id = %s {lock}", [self._goal]).fetchone()  # noqa: S608 - ours
        if row is None or row["attempt"] != self._order.attempt:
            raise Fenced
        return row

    def _gate(self, db: Connection) -> None:
        row = self._fence(db)
        if reason := goals.over_budget(db, row):
            raise Gated(reason, budget=True)
        if until := goals.parked(db, row["account"]):
            raise Gated(f"account {row['account']} waits until {until:%Y-%m-%d %H:%M:%S} UTC", budget=False)

    def _send(self) -> None:
        new = list(records(self._file, after=self._sent))
        if not new:
            return
        store = self._file.with_name("store.git")
        refs = objects.refs_of(store) if any(isinstance(each.event, WITH_OBJECTS) for each in new) else self._refs
        pack = objects.pack_of(store, refs, self._refs)
        with pack or nullcontext():
            self._patiently(lambda db: self._write_all(db, new, refs, pack))
        self._refs, self._sent = refs, new[-1].seq

    def _write_all(self, db: Connection, new: list[Record], refs: dict[str, str], pack: IO[bytes] | None) -> None:
        state, bill = self._state, Bill()
        with db.transaction():
            row = self._fence(db, "FOR UPDATE")
            for record in new:
                state, spent = _after(state, record)
                bill = bill.plus(spent)
            # Where the answer to a commit was lost, it is there already: nobody else can have written it.
            if row["seq"] < new[-1].seq and state is not None:
                self._insert(db, new, refs, pack)
                self._sum_up(db, state, new[-1].seq, bill)
        self._state = state

    def _insert(self, db: Connection, new: list[Record], refs: dict[str, str], pack: IO[bytes] | None) -> None:
        if pack is not None:
            objects.put(db, self._goal, objects.PACK, json.dumps(refs), pack)
        for record in new:
            for name in objects.files_of(record.event):
                with (self._file.parent / name).open("rb") as file:
                    objects.put(db, self._goal, objects.FILE, name, file)
            body = record.event.model_dump_json()
            values = [self._goal, record.seq, self._order.attempt, record.at, record.elapsed, body]
            db.execute(
                "INSERT INTO record (goal, seq, attempt, at, elapsed, body) VALUES (%s, %s, %s, %s, %s, %s)", values
            )

    def _sum_up(self, db: Connection, state: GoalState, seq: int, bill: Bill) -> None:
        head = json.dumps(result.head(state))
        db.execute(
            "UPDATE goal SET seq = %s, turns = %s, result = %s, usd = usd + %s, tokens = tokens + %s,"
            " blind_usd = blind_usd + %s, blind_tokens = blind_tokens + %s WHERE id = %s",
            [seq, len(state.turns), head, *bill, self._goal],
        )
        if bill != Bill():
            db.execute(
                "INSERT INTO spend VALUES ((now() AT TIME ZONE 'UTC')::date, %s, %s, %s, %s, %s)"
                " ON CONFLICT (day, goal, hour) DO UPDATE SET usd = spend.usd + excluded.usd,"
                " tokens = spend.tokens + excluded.tokens, blind_usd = spend.blind_usd + excluded.blind_usd,"
                " blind_tokens = spend.blind_tokens + excluded.blind_tokens",
                [self._goal, *bill],
            )


def _after(state: GoalState | None, record: Record) -> tuple[GoalState, Usage]:
    """The state after a record, and what that one spent: what the fold makes of it where nothing was spent before."""
    if state is None:
        return apply(None, record), NOTHING_SPENT
    alone = apply(state.but(usage=NOTHING_SPENT), record)
    return apply(state, record), alone.usage

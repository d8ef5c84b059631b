"""A worker: takes goals from the queue, runs each in a process of its own, takes over from workers that are gone."""

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg

from goalrun import __version__
from goalrun.adapters.clock import utc_now
from goalrun.errors import GoalrunError, Interrupted, SpecError
from goalrun.fleet import goals
from goalrun.fleet.database import LOCK, LOST, Connection, connect, first_line
from goalrun.fleet.errand import Errand, Way, tidy
from goalrun.fleet.queue import Queue

TICK_SECONDS = 0.5


class Offer(NamedTuple):
    """What a worker has to offer.

    Attributes:
        agents: that are installed here.
    """

    name: str
    slots: int
    labels: frozenset[str]
    agents: frozenset[str]


class _Running(NamedTuple):
    errand: Errand
    thread: threading.Thread
    lost: threading.Event


class Worker:
    """One worker process: a thread for each goal under way, and this one for everything about the database."""

    def __init__(self, offer: Offer, way: Way) -> None:
        self._offer, self._way = offer, way
        self._beat = way.fleet.heartbeat
        self._queue = Queue(way.fleet.url)
        self._db: Connection | None = None
        self._engine: int | None = None
        self._running: dict[str, _Running] = {}
        self._done: list[int] = []
        self._leaving = self._draining = False
        self._next_beat = self._next_look = self._spoke = 0.0
        self._since = -math.inf

    def work(self) -> None:
        """Until asked to end, or drained.

        Raises:
            SpecError: another worker of that name lives.
        """
        with self._signals():
            try:
                self._until_over()
                self._sign_off()
            finally:
                self._queue.close()

    def _until_over(self) -> None:
        told = False
        while not self._over():
            try:
                self._step()
                told = False
            except psycopg.errors.LockNotAvailable:
                # Somebody who holds it was stopped: the server ends that soon.
                continue
            except LOST as failure:
                self._lost_database(failure, told=told)
                told = True
            time.sleep(min(TICK_SECONDS, self._beat / 8))

    def _over(self) -> bool:
        return (self._leaving or self._draining) and not self._running and not self._done

    def _lost_database(self, failure: BaseException, *, told: bool) -> None:
        if not told:
            self._way.tell(f"waiting for the database: {first_line(failure)}")
        if self._db is not None:
            self._db.close()
        self._db = None
        time.sleep(TICK_SECONDS)

    def _step(self) -> None:
        db = self._connected()
        now = time.monotonic()
        if now >= self._next_beat:
            self._queue.beat(self._engine or 0)
            self._next_beat = now + self._beat / 4
            if self._spoke and now - self._spoke > self._way.fleet.silent / 2:
                # Who was away, as all may have been, does not judge others before they could come back too.
                self._since = now
            self._spoke = now
        self._collect(db)
        self._look_after(db)
        if now >= self._next_look:
            self._take_over(db)
            with suppress(GoalrunError, OSError):
                tidy(self._way.session.home, db, self._running)
            self._next_look = now + self._beat / 4
        while len(self._running) < self._offer.slots and not (self._leaving or self._draining):
            if not self._claim(db):
                break

    def _connected(self) -> Connection:
        if self._db is None:
            self._db = connect(self._way.fleet.url, self._way.fleet.silent)
        if self._engine is None:
            self._engine = self._queue.register()
            self._register(self._db, self._engine)
        return self._db

    def _register(self, db: Connection, engine: int) -> None:
        offer = self._offer
        with db.transaction():
            row = db.execute(
                "SELECT FROM worker JOIN procrastinate_workers ON id = engine WHERE name = %s"
                " AND last_heartbeat > now() - %s * interval '1 second' FOR UPDATE",
                [offer.name, self._way.fleet.silent],
            ).fetchone()
            if row is not None:
                raise SpecError(f"a worker {offer.name} is at work already", hint="--name another")
            db.execute("DELETE FROM worker WHERE name = %s", [offer.name])
            db.execute(
                "INSERT INTO worker (name, engine, host, pid, slots, labels, agents, version)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    *(offer.name, engine, socket.gethostname(), os.getpid(), offer.slots),
                    *(sorted(offer.labels), sorted(offer.agents), __version__),
                ],
            )
        self._way.tell(f"worker {offer.name}: {offer.slots} slots, agents: {', '.join(sorted(offer.agents)) or 'none'}")

    def _claim(self, db: Connection) -> bool:
        """Begin one goal; False if there is none for this worker now."""
        for queue in goals.open_queues(db, self._offer.labels, self._offer.agents):
            taken = self._queue.fetch([queue], self._engine or 0)
            if taken is None:
                continue
            mine = goals.claim(db, taken.goal, taken.job, self._offer.name)
            if mine is None:
                self._hand_back(db, taken.job, self._beat / 2)
                continue
            self._begin(mine)
            return True
        return False

    def _begin(self, mine: goals.Mine) -> None:
        lost = threading.Event()

        def leave() -> None:
            self._way.leave()
            if lost.is_set():
                raise Interrupted("leave", "another worker has it")
            if self._leaving:
                raise Interrupted("leave", f"worker {self._offer.name} ends")

        errand = Errand(mine, self._way._replace(leave=leave, mirrors=self._way.mirrors._replace(poll=leave)))
        thread = threading.Thread(target=errand.run, name=mine.id)
        self._running[mine.id] = _Running(errand, thread, lost)
        self._way.tell(f"{mine.id}: begun (attempt {mine.attempt})")
        thread.start()

    def _collect(self, db: Connection) -> None:
        """Tell the engine of goals that this worker has come to an end with; until it knows, again."""
        for goal, running in [*self._running.items()]:
            if not running.thread.is_alive():
                del self._running[goal]
                self._done.append(running.errand.mine.job)
        mine = {running.errand.mine.job for running in self._running.values()}
        for job in [*self._done]:
            self._hand_back(db, job)
            self._done.remove(job)
        # Begun in our name, and its answer never came.
        for job in self._queue.held(self._engine or 0) if time.monotonic() >= self._next_look else ():
            if job not in mine:
                self._hand_back(db, job)

    def _hand_back(self, db: Connection, job: int, wait: float = 0.0) -> None:
        """The engine's job of a goal that is not ours, or no longer: over, or for somebody else, or theirs already."""
        row = db.execute("SELECT worker, ended_at, parked_until, failures FROM goal WHERE job = %s", [job]).fetchone()
        if row is None or row["ended_at"] is not None:
            self._queue.finish(job)
        elif row["worker"] is None:
            self._queue.again(job, _not_before(row, self._beat, wait))

    def _look_after(self, db: Connection) -> None:
        """Pass on what is asked of our goals, and let go of those that are no longer ours."""
        rows = db.execute("SELECT id, attempt, job, asked FROM goal WHERE worker = %s", [self._offer.name]).fetchall()
        ours = {row["id"]: row for row in rows}
        for goal, row in ours.items():
            if goal not in self._running:
                # The answer to our claim never came, or its thread died of a bug.
                mine = goals.Mine(goal, row["attempt"], row["job"], row)
                goals.give_back(db, mine, f"lost on the way to worker {self._offer.name}", failed=True)
        for goal, running in self._running.items():
            found = ours.get(goal)
            if found is not None and found["attempt"] == running.errand.mine.attempt:
                running.errand.ask(found["asked"])
            elif running.thread.is_alive():
                running.lost.set()
        told = db.execute("SELECT asked FROM worker WHERE name = %s", [self._offer.name]).fetchone()
        self._draining = self._draining or (told is not None and told["asked"] == "drain")

    def _take_over(self, db: Connection) -> None:
        """Take goals from workers that are silent, once everybody had time to speak."""
        if time.monotonic() - self._since < self._way.fleet.silent:
            return
        for row in goals.take_over(db, self._way.fleet.silent):
            self._way.tell(f"{row['id']}: taken from {row['worker']}, which is silent")
        # One worker at a time: what was handed back may be begun by somebody else the next moment.
        with db.transaction():
            locked = db.execute("SELECT pg_try_advisory_xact_lock(%s) AS mine", [LOCK]).fetchone()
            for job in self._queue.stalled(self._way.fleet.silent) if locked and locked["mine"] else ():
                self._hand_back(db, job)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT give the goals back and end the worker."""

        def note(*_: object) -> None:
            self._leaving = True

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before: dict[int, Callable[..., object] | int | None] = {n: signal.signal(n, note) for n in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _sign_off(self) -> None:
        with suppress(*LOST):
            if self._db is not None and self._engine is not None:
                self._db.execute("DELETE FROM worker WHERE name = %s", [self._offer.name])
                self._queue.leave(self._engine)
                self._db.close()


def _not_before(row: goals.Row, beat: float, wait: float) -> datetime | None:
    if row["parked_until"] is not None:
        until: datetime = row["parked_until"]
        return until
    failures = int(row["failures"])
    wait += beat / 4 * 2.0**failures if failures else 0.0
    return utc_now() + timedelta(seconds=wait) if wait else None

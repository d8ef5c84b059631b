"""The engine: which goal is next, who lives. The home of procrastinate.

One job stands for one goal, for as long as the goal is not over. Of the engine are used: one job at a time per lock,
priorities, times before which a job is not begun, and the heartbeats of workers. What it does not do by itself is in
``goals``: taking over from the dead, fencing, labels, accounts, fairness.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.schema import SchemaManager
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import RaiseException

from goalrun.errors import EnvironmentFailure
from goalrun.fleet.database import LOST, SERVER_SETTINGS, SETTINGS, Connection, Lost

TASK = "goal"
T = TypeVar("T")
NOW = datetime.fromtimestamp(0, UTC)


class Queued(NamedTuple):
    """A goal as the engine sees it.

    Attributes:
        lock: of all goals with the same one, one is begun at a time.
        at: not before that.
    """

    goal: str
    queue: str
    lock: str
    priority: int
    at: datetime | None = None


class Taken(NamedTuple):
    """A job that was fetched."""

    job: int
    goal: str


def engine_tables(db: Connection, before: str) -> str:
    """Bring the engine's tables up to date: they come as files, of which ``before`` was the last that was applied."""
    files = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    if not before:
        db.execute(SchemaManager.get_schema())
    for file in files:
        if before and file.name > before:
            db.execute(file.read_bytes())
    return files[-1].name


def defer(db: Connection, goals: Sequence[Queued]) -> list[int]:
    """Queue goals in a transaction of the caller's; the number of each one's job."""
    app = App(connector=SyncPsycopgConnector())
    jobs = [
        Job(
            queue=each.queue,
            lock=each.lock,
            queueing_lock=None,
            priority=each.priority,
            task_name=TASK,
            task_kwargs={"goal": each.goal},
            scheduled_at=each.at,
        )
        for each in goals
    ]
    found = app.job_manager.batch_defer_jobs(jobs, connection=db)
    return [job.id for job in found if job.id is not None]


class Queue:
    """The worker's side. Every method raises ``Lost`` where the database cannot be reached."""

    def __init__(self, url: str) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in SERVER_SETTINGS.items())
        self._known = {**SETTINGS, "options": options, "application_name": "goalrun", **conninfo_to_dict(url)}
        self._loop = asyncio.Runner()
        self._app: App | None = None

    def register(self) -> int:
        """A new worker of the engine's."""
        return self._run(lambda app: app.job_manager.register_worker())

    def beat(self, worker: int) -> None:
        """Say that a worker lives."""
        self._run(lambda app: app.job_manager.update_heartbeat(worker))

    def leave(self, worker: int) -> None:
        """Say that a worker is no more."""
        self._run(lambda app: app.job_manager.unregister_worker(worker))

    def fetch(self, queues: Iterable[str], worker: int) -> Taken | None:
        """Begin the next job of some queues."""
        return _taken(self._run(lambda app: app.job_manager.fetch_job([*queues], worker)))

    def held(self, worker: int) -> list[int]:
        """The jobs that a worker has begun."""
        found = self._run(lambda app: app.job_manager.list_jobs_async(status="doing", worker_id=worker))
        return [job.id for job in found if job.id is not None]

    def stalled(self, seconds: float) -> list[int]:
        """The jobs of workers that were silent for so long."""
        found = self._run(lambda app: app.job_manager.get_stalled_jobs(seconds_since_heartbeat=seconds))
        return [job.id for job in found if job.id is not None]

    def finish(self, job: int) -> None:
        """The job is over; so is one that was over before."""
        self._unless_raced(
            job, lambda app: app.job_manager.finish_job_by_id_async(job, Status.SUCCEEDED, delete_job=True)
        )

    def again(self, job: int, at: datetime | None) -> None:
        """The job is to be begun again, not before a time; one that is not begun stays as it is."""
        self._unless_raced(job, lambda app: app.job_manager.retry_job_by_id_async(job, at or NOW))

    def close(self) -> None:
        """Let the connection go."""
        self._forget()
        self._loop.close()

    def _unless_raced(self, job: int, ask: Callable[[App], Coroutine[Any, Any, None]]) -> None:
        if not [*self._run(lambda app: app.job_manager.list_jobs_async(id=job, status="doing"))]:
            return
        try:
            self._run(ask)
        except EnvironmentFailure as failure:
            # "Job was not found": another worker was faster.
            if not isinstance(failure.__cause__ and failure.__cause__.__cause__, RaiseException):
                raise

    def _run(self, ask: Callable[[App], Coroutine[Any, Any, T]]) -> T:
        try:
            return self._loop.run(self._asked(ask))
        except (ConnectorException, *LOST) as failure:
            why = failure.__cause__ if isinstance(failure, ConnectorException) else failure
            if not isinstance(why, LOST):
                raise EnvironmentFailure(f"the queue cannot be used: {why or failure}") from failure
            # A connection of before a cut is never met again.
            self._forget()
            raise Lost(str(why)) from failure

    async def _asked(self, ask: Callable[[App], Coroutine[Any, Any, T]]) -> T:
        if self._app is None:
            connector = PsycopgConnector(kwargs=self._known, min_size=1, max_size=1, timeout=6.0)
            app = App(connector=connector)
            self._app = app
            await app.open_async()
        return await ask(self._app)

    def _forget(self) -> None:
        app, self._app = self._app, None
        if app is not None:
            with suppress(ConnectorException, *LOST):
                self._loop.run(app.close_async())


def _taken(job: Job | None) -> Taken | None:
    if job is None or job.id is None:
        return None
    return Taken(job.id, str(job.task_kwargs["goal"]))

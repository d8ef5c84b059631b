"""Who is told of what happens: the user's commands, desktop and webhook; see docs/configuration.md.

They run one after the other in a thread of their own, each with a deadline: what they do, and how long they take,
cannot change what becomes of the goal.
"""

import json
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from goalrun.adapters import process
from goalrun.adapters.files import private_folder, write_whole
from goalrun.adapters.notify import Call, calls
from goalrun.core.events import BaseVerified, GoalStopped, Record, StepSettled, TurnFinished
from goalrun.core.evidence import secrets_of
from goalrun.core.model import GoalState, State
from goalrun.core.ports import Reporter
from goalrun.core.result import head
from goalrun.core.spec import GoalSpec
from goalrun.errors import GoalrunError, Interrupted

HOOK_SECONDS = 10.0
MOST = 1_000
"""How many events wait for a hook at most; what comes while so many wait is left out."""


class Hooks:
    """A reporter that passes everything on to another one, and tells the user's commands, desktop and webhook.

    Args:
        folder: the goal's folder; the last output of each hook is in ``hooks`` there.
        spec: the goal, with its hooks by what they are told of: turn, step, member, block, end.
    """

    def __init__(self, reporter: Reporter, folder: Path, spec: GoalSpec, env: Mapping[str, str]) -> None:
        self._reporter = reporter
        self._folder = folder
        self._spec = spec
        self._env = env
        self._waiting: queue.Queue[tuple[Call, str] | None] = queue.Queue(MOST)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hooks", daemon=True)
        if spec.hooks or spec.notify.desktop or spec.notify.webhook is not None:
            self._thread.start()

    def show(self, record: Record, state: GoalState) -> None:
        """See ``core.ports.Reporter``."""
        self._reporter.show(record, state)
        for name in told(record) if self._thread.is_alive() else ():
            event = {"schema": 1, "event": name, "goal": head(state), "record": record.model_dump(mode="json")}
            hook = self._spec.hooks.get(name)
            asked = [Call(name, ("bash", "-c", hook))] if hook is not None else []
            asked += calls(self._spec.notify, state, self._env.get("PATH")) if name == "end" else []
            for call in asked:
                with suppress(queue.Full):
                    self._waiting.put_nowait((call, json.dumps(event)))

    def close(self) -> None:
        """Let what waits be told, for as long as one hook may take."""
        if self._thread.is_alive():
            with suppress(queue.Full):
                self._waiting.put(None, timeout=HOOK_SECONDS)
            self._thread.join(HOOK_SECONDS)
            self._closed.set()
            self._thread.join(HOOK_SECONDS)

    def _run(self) -> None:
        while (waiting := self._waiting.get()) is not None and not self._closed.is_set():
            # A hook that fails is the user's to find out about, in its output; it is no failure of the goal.
            with suppress(GoalrunError, OSError):
                self._tell(*waiting)

    def _tell(self, call: Call, event: str) -> None:
        kept = private_folder(self._folder / "hooks")
        write_whole(kept / f"{call.name}.json", event)
        env = {**self._env, **call.env}
        process.run(
            process.Command(
                argv=call.argv,
                cwd=Path(self._spec.workspace),
                env=env,
                stdin=kept / f"{call.name}.json",
                stdout=kept / f"{call.name}.out",
                timeout=HOOK_SECONDS,
                secrets=secrets_of(self._env),
            ),
            lambda _: None,
            self._poll,
        )

    def _poll(self) -> None:
        if self._closed.is_set():
            raise Interrupted("stop", "the goal has ended")


@contextmanager
def hooked(reporter: Reporter, folder: Path, spec: GoalSpec, env: Mapping[str, str]) -> Iterator[Reporter]:
    """A reporter with whoever is to be told behind it, and at the end everybody has been told everything."""
    hooks = Hooks(reporter, folder, spec, env)
    try:
        yield hooks
    finally:
        hooks.close()


def told(record: Record) -> Iterator[str]:
    """Which hooks an event is for."""
    event = record.event
    if isinstance(event, TurnFinished):
        yield "turn"
        if event.record.decision == State.BLOCKED:
            yield "block"
        if event.record.decision != "continue":
            yield "end"
    elif isinstance(event, StepSettled):
        yield "member" if "/" in event.path or "[" in event.path else "step"
        if event.step.status == "blocked":
            yield "block"
    elif isinstance(event, GoalStopped):
        if event.state in {State.BLOCKED, State.WAITING}:
            yield "block"
        yield "end"
    elif isinstance(event, BaseVerified) and event.achieved:
        yield "end"

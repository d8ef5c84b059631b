"""Asks agents: again after a failure, the next of a chain in its place, and nobody while a provider's limit stands."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol, TypeVar

from goalrun.core.events import AgentFailed, Event, QuotaOver, QuotaWait
from goalrun.core.model import GoalState
from goalrun.core.ports import AgentFailure, Clock
from goalrun.errors import EnvironmentFailure, of_the_system

BACK_OFF_SECONDS = (1.0, 4.0)
"""Waits between the attempts at something that the machine, not the worker, failed at."""
QUOTA_SECONDS = (60.0, 3600.0)
"""First and longest wait for a limit whose end nobody tells; each is twice the one before."""
T = TypeVar("T")


class Named(Protocol):
    """An agent of a chain."""

    @property
    def name(self) -> str:
        """Under which its limit is known."""
        ...


A = TypeVar("A", bound=Named)


class QuotaStop(EnvironmentFailure):
    """A provider's limit stands, and the goal is not to sit it out."""


class Asking(NamedTuple):
    """What asking needs of a loop.

    Attributes:
        state: the goal as it stands.
        note: records an event.
        cut: keeps what a failed worker left in the files; given why.
        met: how often running each agent was found limited without being told until when.
    """

    clock: Clock
    state: Callable[[], GoalState]
    note: Callable[[Event], None]
    cut: Callable[[str], None]
    met: dict[str, int]

    def first(self, role: Literal["worker", "judge"], agents: Sequence[A], ask: Callable[[A], T]) -> T:
        """The answer of the first agent that gives one.

        Raises:
            EnvironmentFailure: none could be asked.
            QuotaStop: those that could be are limited, and the goal is not to wait.
        """
        while True:
            failure: EnvironmentFailure | None = None
            for agent in agents:
                if self._limited_until(agent.name) is not None:
                    continue
                try:
                    return self._answer(role, agent, ask)
                except EnvironmentFailure as problem:
                    failure = problem
            limits = {agent.name: until for agent in agents if (until := self._limited_until(agent.name)) is not None}
            if limits:
                self._sit_out(limits)
            elif failure is not None:
                raise failure

    def _answer(self, role: Literal["worker", "judge"], agent: A, ask: Callable[[A], T]) -> T:
        """One agent's answer, after as many attempts as its failures are worth."""
        tries = 0
        while True:
            try:
                answer = ask(agent)
            except AgentFailure as failure:
                self._failed(role, agent.name, failure)
                if failure.kind != "failed" or role == "judge" or tries == len(BACK_OFF_SECONDS):
                    raise
            except EnvironmentFailure as failure:
                self._lost(role, agent.name, explained(failure))
                if tries == len(BACK_OFF_SECONDS):
                    raise
            else:
                self.met.pop(agent.name, None)
                return answer
            self.clock.sleep(BACK_OFF_SECONDS[tries])
            tries += 1

    def _failed(self, role: Literal["worker", "judge"], agent: str, failure: AgentFailure) -> None:
        until = self._until(agent, failure).isoformat(timespec="seconds") if failure.kind == "limited" else ""
        reason = explained(failure)
        opened = self.state().open
        self.note(AgentFailed(role=role, agent=agent, reason=reason, usage=failure.usage, until=until))
        if role == "worker" and opened is not None and opened.launched:
            self.cut(reason)

    def _lost(self, role: Literal["worker", "judge"], agent: str, reason: str) -> None:
        """The machine failed under an agent that ran: its edits are kept, and what it spent is not known."""
        opened = self.state().open
        if role == "judge" and self.state().judging:
            self.note(AgentFailed(role=role, agent=agent, reason=reason))
        elif role == "worker" and opened is not None and opened.launched:
            self.cut(reason)

    def _until(self, agent: str, failure: AgentFailure) -> datetime:
        now = self.clock.now()
        if failure.reset is not None:
            return max(now, datetime.fromtimestamp(failure.reset, UTC)) + timedelta(seconds=1)
        least, most = QUOTA_SECONDS
        before = self.met.get(agent, 0)
        self.met[agent] = before + 1
        return now + timedelta(seconds=min(most, least * 2 ** min(before, 10)))

    def _limited_until(self, agent: str) -> datetime | None:
        until = self.state().limited.get(agent, "")
        found = datetime.fromisoformat(until) if until else None
        return found if found is not None and found > self.clock.now() else None

    def _sit_out(self, limits: dict[str, datetime]) -> None:
        """Wait until the first of these limits ends."""
        agent, until = min(limits.items(), key=lambda item: item[1])
        named = until.isoformat(timespec="seconds")
        detail = f"{agent} has reached its provider's limit; it is asked again at {named}"
        if not self.state().spec.wait_quota:
            raise QuotaStop(detail, hint="resume after that")
        self.note(QuotaWait(until=named, detail=detail))
        self.clock.idle((until - self.clock.now()).total_seconds())
        self.note(QuotaOver())


def explained(problem: EnvironmentFailure | OSError) -> str:
    """A failure and what to do about it, in one line."""
    failure = of_the_system(problem) if isinstance(problem, OSError) else problem
    return f"{failure}; {failure.hint}" if failure.hint else str(failure)

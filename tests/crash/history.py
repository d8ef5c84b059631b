"""What has to be true of a goal's history after any death: functions of what is left, each telling what is wrong."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from crash.place import ITEMS

from goalrun.core.events import (
    CallFinished,
    JudgementFinished,
    ProcessStarted,
    Record,
    RunStarted,
    TurnFinished,
    TurnInterrupted,
    VerificationFinished,
    WorkerEnded,
)
from goalrun.core.model import GoalState, Snapshot
from goalrun.core.replay import apply

Fact = Mapping[str, Any]
SPENT = ("spent", "judged")
PATHS = {f"each[{number}]": f"each-{item}" for number, item in enumerate(ITEMS, start=1)}
COUNTS = ("input_tokens", "output_tokens", "total_tokens", "usd", "seconds")


class History(NamedTuple):
    """What is left of one goal.

    Attributes:
        facts: the diary, oldest first: what goalrun acknowledged, and what worker and judge did.
        journal: the file.
        digests: the digest of each record, by its number.
        commits: what the refs of the store reach, and what worker runs the diary in each names.
        workspace: the same of the workspace.
        complaints: of git about the store, of locks that are still held, of files of the user's that are changed.
        sessions: a run's session has to be known after its death.
    """

    facts: Sequence[Fact]
    journal: str
    records: Sequence[Record]
    digests: Mapping[int, str]
    commits: Mapping[str, frozenset[str]]
    workspace: frozenset[str]
    complaints: Sequence[str]
    sessions: bool = True


def problems(history: History) -> list[str]:
    """Everything that is wrong after a death."""
    found = [*history.complaints]
    for look in (lost, paid_twice, called_again, repeated, lower, uncounted, thrown_away, unsnapshotted, forgotten):
        found += look(history)
    return found


def states(records: Sequence[Record]) -> list[GoalState]:
    """The state after each record."""
    found: list[GoalState] = []
    for record in records:
        found.append(apply(found[-1] if found else None, record))
    return found


def lost(history: History) -> Iterator[str]:
    """Records that were acknowledged as durable and are not there, or are others."""
    for fact in history.facts:
        ours = fact["what"] == "record" and fact["journal"] == history.journal
        if ours and history.digests.get(fact["seq"]) != fact["digest"]:
            yield f"acknowledged record {fact['seq']} ({fact['kind']}) is lost"


def paid_twice(history: History) -> Iterator[str]:
    """Turns whose worker ran again after its end was recorded."""
    ended: set[int] = set()
    of = {record.seq: record.event for record in history.records}
    for fact in history.facts:
        if fact["what"] == "record" and fact["journal"] == history.journal:
            event = of.get(fact["seq"])
            if isinstance(event, WorkerEnded):
                if event.turn in ended:
                    yield f"turn {event.turn} has two ends of its worker"
                ended.add(event.turn)
        elif fact["what"] == "begin" and fact["turn"] in ended:
            yield f"the worker of turn {fact['turn']} ran again after its end was recorded"


def called_again(history: History) -> Iterator[str]:
    """Calls of a flow that were made again after one with the same prompt was recorded as done."""
    done: set[tuple[str, int]] = set()
    of = {record.seq: record.event for record in history.records}
    for fact in history.facts:
        event = of.get(fact.get("seq", 0)) if fact.get("journal") == history.journal else None
        if isinstance(event, CallFinished) and event.call.status == "done":
            done.add((event.path, event.turn))
        # The plan says the same in every turn, the others what is said in that one.
        elif fact["what"] == "called" and (fact["path"], 0 if fact["path"] == "plan" else fact["turn"]) in {
            (PATHS.get(path, path), 0 if path == "plan" else turn) for path, turn in done
        }:
            yield f"{fact['path']} was called again in turn {fact['turn']} after its end was recorded"


def repeated(history: History) -> Iterator[str]:
    """Checks and judges that ran again after their result was recorded."""
    done: set[str] = set()
    for record in history.records:
        match record.event:
            case TurnFinished():
                done.clear()
            case VerificationFinished():
                done.add("check")
            case JudgementFinished():
                done |= {"check", "judge"}
            case ProcessStarted(role=role) if role in done:
                yield f"record {record.seq}: a {role} ran again after its result was recorded"
            case _:
                pass


def lower(history: History) -> Iterator[str]:
    """Usage that went down, or became known after it was unknown."""
    for before, after in pairwise(states(history.records)):
        for name in COUNTS:
            was, now = getattr(before.usage, name), getattr(after.usage, name)
            if (was is None and now is not None) or (was is not None and now is not None and now < was):
                yield f"usage: {name} went from {was} to {now}"


def uncounted(history: History) -> Iterator[str]:
    """Usage that claims to be known, and is not what worker and judge say that they spent."""
    spent = sum(fact["tokens"] for fact in history.facts if fact["what"] in SPENT)
    if not history.records:
        return
    state = states(history.records)[-1]
    told = state.usage.total_tokens
    if told is not None and told > spent:
        yield f"usage: {told} tokens are counted, {spent} were spent"
    if told is not None and told < spent and state.open is None and state.status != "running":
        yield f"usage: only {told} of {spent} tokens are counted, and that is called known"


def thrown_away(history: History) -> Iterator[str]:
    """Edits of a worker that are neither in the workspace nor in anything that a ref reaches."""
    kept = history.workspace.union(*history.commits.values())
    for fact in history.facts:
        if fact["what"] == "edited" and fact["run"] not in kept:
            yield f"what run {fact['run']} of turn {fact['turn']} edited is nowhere"
    for snapshot in _snapshots(history.records):
        if snapshot.commit not in history.commits:
            yield f"the recorded snapshot {snapshot.commit[:12]} is reached by no ref"


def _snapshots(records: Sequence[Record]) -> Iterator[Snapshot]:
    for record in records:
        found = getattr(record.event, "snapshot", None)
        if isinstance(found, Snapshot):
            yield found


def unsnapshotted(history: History) -> Iterator[str]:
    """A cut turn whose edits were not a snapshot before anything else ran."""
    cut = False
    for record, state in zip(history.records, states(history.records), strict=True):
        if cut and isinstance(record.event, ProcessStarted):
            yield f"record {record.seq}: a process was started before the edits of a cut turn were a snapshot"
        if isinstance(record.event, TurnInterrupted):
            cut = False
        if isinstance(record.event, RunStarted):
            cut = state.open is not None and state.open.launched and state.open.worker is None


def forgotten(history: History) -> Iterator[str]:
    """A run of the worker that was not told of a cut one, or not given the session that there was."""
    session: str | None = None
    cut: Fact | None = None
    of = {record.seq: record.event for record in history.records}
    for fact in history.facts:
        if fact["what"] == "begin":
            if cut is not None and cut["turn"] == fact["turn"] and not fact["told"]:
                yield f"run {fact['run']} was not told that its turn was cut before"
            if history.sessions and session is not None and fact["given"] != [session]:
                yield f"run {fact['run']} was given session {fact['given']} and not {session}"
            cut = fact
        elif fact["what"] == "named":
            session = fact["session"]
        elif fact["what"] == "record" and isinstance(of.get(fact["seq"]), WorkerEnded):
            cut = None

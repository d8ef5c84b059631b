"""What pages are made of. All texts are as they came: what renders them makes them harmless."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from goalrun.core.model import GoalState, Judgement, Snapshot, StepRecord, Usage, VerificationReport, WorkerReport


class Part(NamedTuple):
    """A text that people can unfold: ``text`` is bounded, ``path`` the file that holds all of it, if one does."""

    title: str
    text: str
    path: str = ""


class FilePatch(NamedTuple):
    """What happened to one file: bounded ``chunks`` of lines, each ``added``, ``gone``, ``place`` or ``same``.

    Attributes:
        path: escaped as in ``Tamper.path``.
        added: how many lines are new, of the whole patch.
        gone: how many are gone.
        about: what it is beside lines: new, deleted, binary, another mode.
        left_out: how many lines are not in ``chunks``.
    """

    path: str
    added: int = 0
    gone: int = 0
    about: str = ""
    chunks: tuple[tuple[str, str], ...] = ()
    left_out: int = 0


class Patch(NamedTuple):
    """What happened to the files between two snapshots; ``failure`` says why that is not known."""

    files: tuple[FilePatch, ...] = ()
    left_out: int = 0
    failure: str = ""


class Note(NamedTuple):
    """Something that happened beside the turns' own order; ``at`` is UTC in ISO format."""

    at: str
    text: str


class Turn(NamedTuple):
    """One turn; where it is under way, ``decision`` is "" and what has not happened yet is None.

    Attributes:
        began: UTC in ISO format.
        folder: where the worker's own files are, below the goal's folder.
        usage: of worker and judge together.
    """

    number: int
    began: str
    folder: str
    worker: WorkerReport | None
    snapshot: Snapshot | None
    verification: VerificationReport | None
    judgement: Judgement | None
    decision: str
    reason: str
    feedback: str
    usage: Usage | None
    notes: tuple[Note, ...]

    @property
    def tests(self) -> tuple[int, int] | None:
        """Tests that passed and that failed, over all checks; None where no check counts tests."""
        counts = [check.tests for check in self.verification.checks if check.tests] if self.verification else []
        return (sum(each.passed for each in counts), sum(each.failed for each in counts)) if counts else None

    @property
    def checks(self) -> tuple[int, int] | None:
        """Checks that passed and that did not."""
        if self.verification is None:
            return None
        passed = sum(check.outcome == "pass" for check in self.verification.checks)
        return passed, len(self.verification.checks) - passed

    @property
    def steps(self) -> Mapping[str, StepRecord]:
        """Of a flow: what became of its steps."""
        return self.worker.steps if self.worker is not None else {}

    @property
    def touched(self) -> Mapping[str, str]:
        """Protected paths that were edited, and how."""
        found = self.verification.tampering if self.verification is not None else ()
        back = self.snapshot.protected_edits if self.snapshot is not None else ()
        return {tamper.path: tamper.kind for tamper in (*found, *back)}


class Story(NamedTuple):
    """What a goal's records tell. ``before`` and ``after`` happened before turn 1 and after the last one."""

    state: GoalState
    turns: tuple[Turn, ...]
    before: tuple[Note, ...]
    after: tuple[Note, ...]


class TurnPage(NamedTuple):
    """A turn with what was read of it."""

    turn: Turn
    parts: tuple[Part, ...]
    patch: Patch


class GoalPage(NamedTuple):
    """All that a goal's page shows.

    Attributes:
        result: the goal's result as JSON, without its turns.
        folder: the goal's, with all files whole.
        total: what changed since the base.
        most: characters of one text, about.
        graph: of a flow: its drawing.
        absent: what cannot be shown here, and where it is.
    """

    result: Mapping[str, Any]
    story: Story
    folder: str
    turns: tuple[TurnPage, ...]
    total: Patch
    most: int
    graph: str = ""
    absent: str = ""


class Slot(NamedTuple):
    """What happened in a fleet in an hour or a day, from ``at`` on (UTC).

    Attributes:
        unknown: runs that did not report what they spent.
        achieved: goals that ended so; ``other`` are those that ended otherwise.
    """

    at: datetime
    usd: float
    tokens: int
    unknown: int
    achieved: int
    other: int


class CheckTimes(NamedTuple):
    """How long a check took, whenever it ran lately; ``goal`` is that of the longest run."""

    command: str
    runs: int
    failed: int
    longest: float
    mean: float
    goal: str


class FleetPage(NamedTuple):
    """All that the page of a fleet shows.

    Attributes:
        overview: what ``goalrun fleet status --json`` prints.
        waiting: goals that wait, and for how many seconds the oldest does.
        unit: ``hour`` or ``day``: what a slot is.
        only: the state that ``results`` are of; "" is all.
        results: the goals' results as JSON; ``more`` are not among them.
        ages: how old each is, by id.
    """

    overview: Mapping[str, Any]
    waiting: tuple[int, float]
    unit: str
    slots: Sequence[Slot]
    checks: Sequence[CheckTimes]
    only: str
    results: Sequence[Mapping[str, Any]]
    more: int
    ages: Mapping[str, str]


class Actions(NamedTuple):
    """What a live page lets people do.

    Attributes:
        mark: what it was made of, to tell whether there is something newer.
        token: what forms carry.
        verbs: what there is to do, and whether it can be done now; none on a page that is only to be read.
        said: what came of the last thing that was done.
    """

    mark: str
    token: str
    verbs: Mapping[str, bool]
    said: str = ""

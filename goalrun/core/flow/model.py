"""What a flow is: steps, how they hang together, and what becomes of each."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from goalrun.core.value import Json, JsonObject, Pause, Seconds, Text, Value

MAX_STEPS = 1_000
MAX_PROMPT_CHARS = 5_000_000
STEP_ID = r"[A-Za-z0-9_-]{1,64}"
FLOW_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
"""What a flow that has a file can be called."""
KINDS = ("prompt", "run", "flow", "python", "ask", "member")
"""Keys of which a step has exactly one: what it does."""


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_TEXT = {"type": "string", "minLength": 1}
Names = Annotated[
    tuple[Text, ...],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
"""One text, or a list of them."""


class _Keyed(Value):
    """A value whose fields may be called what Python reserves: ``with``, ``as``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Arg(Value):
    """One argument of a flow. ``default`` is used where none is given; without one it is null, or ``required``.

    Attributes:
        type: what it has to be; text from a command line is read as that. A path is relative, and stays below.
        enum: what it may be.
        min: the least that a number may be.
        max: the most.
    """

    type: Literal["string", "int", "number", "bool", "path", "json"] | None = None
    enum: tuple[Json, ...] = ()
    min: float | None = None
    max: float | None = None
    default: Json = None
    required: bool = False
    help: str = ""


class Retry(Value):
    """How often a failed call is tried again: after ``delay * factor^k`` seconds, at most a minute."""

    max: int = Field(default=0, ge=0, le=20)
    delay: Pause = 0.0
    factor: float = Field(default=1.0, ge=1, le=10)

    def pause(self, failed: int) -> float:
        """Seconds before the next try, after so many have failed."""
        return float(min(60.0, self.delay * self.factor ** (failed - 1)))


class FlowBudget(Value):
    """What all calls of one run of a flow may spend together; strictly more ends the run as ``blocked``."""

    usd: float | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)


class Member(Value):
    """One of several who do a step: an agent, or a command.

    Attributes:
        prompt: in place of the step's.
        prompt_add: behind the step's.
    """

    agent: Text | None = None
    run: Text | tuple[str, ...] | None = None
    prompt: str | None = None
    prompt_add: str = ""
    model: Text | None = None


class Step(_Keyed):
    """One node of a flow: what is done (exactly one of ``KINDS``), when, and what counts as done.

    Attributes:
        run: argv, or a line for ``bash -c``, which takes no placeholders.
        python: ``file.py:function``, a worker written in Python; the file is beside the flow's.
        with_: arguments of ``flow`` or ``python`` (key ``with``).
        each: a placeholder or a list: the step is done once for each element, called ``as``.
        gate: the answer says whether the flow goes on; an unclear one does as ``on_unclear`` says.
        check: commands that have to pass, in a clean worktree, on what the step, or a member, left.
        max_turns: how often a step with ``check`` is tried, with what failed as feedback.
        strategy: of several members: ``all`` do the same in the shared workspace, ``compete``, each in a worktree of
            its own, for the one whose checks pass, or are put together by ``lead`` (``synthesize``).
        setup: run in a member's new worktree first.
        score: a command that prints a number; more is better, after the checks.
        apply: what happens to the winner's files: ``tree`` brings them into the workspace, ``none`` keeps them aside;
            ``lead`` has the lead of ``synthesize`` put the members' changes together there.
        join: of several needs: ``all`` succeeded; ``any``, the first that succeeds is enough; ``done``, all are
            settled, at least one succeeded and none blocked.
        optional: its failure does not fail the flow, and counts as done for what needs it.
        finally_: runs when all others are over, whatever became of them, and changes nothing of that (key ``finally``).
        expect: what its JSON has to be: ``"json"``, ``"array"``, a table of allowed values, or a JSON Schema's file.
        idle_timeout: how long a call may print nothing.
        writes: False runs it read-only where that can be done, and leaves the tree out of what it is recognised by.
        cache: False never takes its result from an earlier run, and asks a person where it may have been cut.
        cache_tree: False recognises it whatever the files are.
    """

    id: Annotated[str, Field(pattern=f"^{STEP_ID}$")]
    agent: Text | None = None
    model: Text | None = None
    prompt: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    run: Text | tuple[str, ...] | None = None
    flow: Text | None = None
    python: Text | None = None
    with_: JsonObject = Field(default={}, alias="with")
    ask: str | None = None
    member: tuple[Member, ...] = ()
    strategy: Literal["all", "compete", "synthesize"] = "all"
    pick: Literal["first", "best"] = "first"
    score: Text | None = None
    lead: Text | None = None
    lead_prompt: str | None = None
    each: str | tuple[Json, ...] | None = None
    as_: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] = Field(default="item", alias="as")
    gate: bool = False
    on_unclear: Literal["block", "pass"] = "block"
    check: Names = ()
    max_turns: int = Field(default=1, ge=1, le=100)
    protect: Names = ()
    may_change: Names = ()
    setup: Text | None = None
    apply: Literal["tree", "none", "lead"] = "tree"
    workspace: Literal["shared", "worktree"] = "shared"
    needs: Names = ()
    when: str = ""
    join: Literal["all", "any", "done"] = "all"
    retry: Retry = Retry()
    optional: bool = False
    final: bool = False
    finally_: bool = Field(default=False, alias="finally")
    expect: str | JsonObject | None = None
    timeout: Seconds | None = None
    idle_timeout: Seconds | None = None
    concurrency: int | None = Field(default=None, ge=1, le=64)
    env: Mapping[str, str] = {}
    writes: bool = True
    cache: bool = True
    cache_tree: bool = True

    @property
    def kind(self) -> str:
        """Which of ``KINDS`` it is; members share the step's prompt."""
        return "member" if self.member else next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def undecided(self) -> bool:
        """Whether nothing of its own says which of its members wins."""
        return bool(self.member) and self.strategy == "compete" and not self.check

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None and getattr(self, kind) != ()]
        # A group's members share the step's prompt.
        kinds = [kind for kind in given if not (kind == "prompt" and "member" in given)]
        if len(kinds) != 1:
            said = " and ".join(kinds) if kinds else "none"
            raise ValueError(f"step {self.id!r} needs exactly one of {', '.join(KINDS)}; it has {said}")
        return self


class Flow(Value):
    """Steps, from a file or from another program.

    Attributes:
        args: what it takes, in order; text without names goes to the first.
        concurrency: how many calls run at once.
        max_calls: how many calls of agents one run may take in all; those of the flow that is run count.
        agents: names that its steps use, as a configuration's ``[agents.NAME]``, or ``use`` and ``model``.
        flows: flows that its steps use, by name.
        source: the file that it came from; "" for one made by a program.
        code: what the Python files of its steps say, by name.
    """

    name: Text
    description: str = ""
    args: Mapping[str, Arg] = {}
    concurrency: int = Field(default=4, ge=1, le=64)
    max_calls: int = Field(default=1_000, ge=1, le=100_000)
    budget: FlowBudget = FlowBudget()
    agents: Mapping[str, JsonObject] = {}
    steps: tuple[Step, ...] = Field(min_length=1, max_length=MAX_STEPS)
    flows: Mapping[str, "Flow"] = {}
    source: str = ""
    code: Mapping[str, str] = {}

    @property
    def main(self) -> tuple[Step, ...]:
        """The steps that its outcome is made of: all but those that run finally."""
        return tuple(step for step in self.steps if not step.finally_)

    def step(self, name: str) -> Step:
        """A step by its id."""
        return next(step for step in self.steps if step.id == name)


Status = Literal["done", "failed", "skipped", "blocked", "waiting"]


class Result(Value):
    """What came of a call, of a step, or of a whole flow; never a bare null.

    Attributes:
        before: the tree that it began with; "" where files play no part.
        after: the tree that it left.
        attempts: how often it was tried; 0 where nothing ran.
        cached: taken from an earlier run.
        usd: what it cost; None is unknown.
        tokens: what it used; None is unknown.
        by: who blocked it: a gate, a person, a budget, or the worker itself.
        winner: which member's files were taken.
        source: of a flow: the step whose output it is.
        members: what became of each item, or of each member.
    """

    status: Status
    reason: str = ""
    by: Literal["", "gate", "person", "budget", "worker"] = ""
    text: str = ""
    json_: Json = Field(default=None, alias="json")
    seconds: float = 0.0
    attempts: int = 0
    cached: bool = False
    usd: float | None = None
    tokens: int | None = None
    agent: str = ""
    model: str = ""
    before: str = ""
    after: str = ""
    winner: str = ""
    source: str = ""
    members: tuple["Result", ...] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    @property
    def ok(self) -> bool:
        """Whether it is done."""
        return self.status == "done"

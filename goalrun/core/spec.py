"""What a goal is: what its owner asked for, frozen by value at start."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from goalrun.core.flow.model import Flow
from goalrun.core.value import Json, Seconds, Text, Value

MAX_OBJECTIVE_CHARS = 4_000
"""Longest objective on a command line; a file given with ``-f`` may be longer."""
PLAIN_COMMAND = "command"
"""The name of an agent that is just a command line."""


class Limits(Value):
    """What a goal may use, and ``[limits]`` of a configuration. Times are seconds; ``None`` is no limit.

    Attributes:
        allow_unknown_spend: go on where nobody reports the tokens or USD that a limit is about.
    """

    max_turns: int = Field(default=20, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_usd: float | None = Field(default=None, gt=0)
    max_time: Seconds | None = None
    turn_timeout: Seconds = 1800.0
    check_timeout: Seconds = 600.0
    stuck_after: int = Field(default=3, ge=0)
    allow_unknown_spend: bool = False


class AgentCommand(Value):
    """A command line that does a prompt, and how what it prints is read.

    In the words of a command these are replaced: ``{prompt}`` (a word of its own; the prompt is on standard input
    too), ``{prompt_file}``, ``{session}``, ``{usd}``, ``{schema}`` (of a judge's answer) and ``{dir}``, a folder of
    this run alone that holds ``prompt.md``, ``schema.json`` and ``files``, and where the agent may write ``report``.

    Attributes:
        command: argv.
        resume: argv that goes on with a session; empty where that cannot be done.
        session: whether each turn begins a session or goes on with the last one.
        model: what it asks, where it does not say so itself: for the price.
        reads: how its output is read; see ``adapters.agents``.
        find: with ``reads`` "find": where the text, session, tokens, cost and quota are.
        files: what else is in ``{dir}``, by name.
        spend: words added to the command while a USD limit is set; ``{usd}`` is what remains of it.
        blocked_line: where the agent cannot choose its exit status, a last line of output that starts
            with this text reports ``blocked``.
        env: variables set for the agent beside the user's own.
    """

    command: tuple[str, ...] = Field(min_length=1)
    resume: tuple[str, ...] = ()
    session: Literal["fresh", "resume"] = "fresh"
    model: str = ""
    reads: str = "text"
    find: Mapping[str, str] = {}
    files: Mapping[str, str] = {}
    spend: tuple[str, ...] = ()
    blocked_line: Text | None = None
    env: Mapping[str, str] = {}


class AgentSpec(AgentCommand):
    """An agent of a goal.

    Attributes:
        name: the agent's name, or ``PLAIN_COMMAND``.
        timeout: seconds that a judge may take.
        fallbacks: agents that are asked in its place while it cannot be.
    """

    name: Text
    timeout: float = Field(default=300, ge=1)
    fallbacks: tuple["AgentSpec", ...] = ()

    @property
    def chain(self) -> tuple["AgentSpec", ...]:
        """The agent and those that stand in for it, in order."""
        return (self, *self.fallbacks)


class Verification(Value):
    """How turns are checked, as their owner asks for it.

    Attributes:
        worktree: checks run in a clean worktree of the snapshot (False: in the live workspace).
        protected_edits: what happens to edits of protected paths (see docs/concepts.md).
        protect: globs added to the default protected set.
        may_change: globs taken out of it.
        pass_env: names of variables that checks get from the environment.
        deps: folders of the workspace, relative to it, that are frozen at start for the checks.
        prepare: a command that makes dependencies on the base, with the network; they are frozen too.
        sandbox: how checks are isolated; ``auto`` is the strongest level that works.
        require_sandbox: a level that is weaker than bwrap is an error.
        network: checks may use the machine's network.
        require_strong: a weak pass does not count.
        jobs: how many checks run side by side, each in a worktree of its own; 1: one after the other, in the same.
        baseline: note which tests the base has, and see each check fail once, before the first turn.
    """

    worktree: bool = True
    protected_edits: Literal["reject", "restore"] = "reject"
    protect: tuple[Text, ...] = ()
    may_change: tuple[Text, ...] = ()
    pass_env: tuple[Text, ...] = ()
    deps: tuple[Text, ...] = ()
    prepare: Text | None = None
    sandbox: Literal["auto", "bwrap", "seatbelt", "landlock", "process"] = "auto"
    require_sandbox: bool = False
    network: bool = False
    jobs: int = Field(default=1, ge=1)
    baseline: bool = True
    require_strong: bool = False


class VerificationSpec(Verification):
    """How the turns of a goal are checked.

    Attributes:
        path: the PATH that checks get, as it was at start.
    """

    path: str = ""


class FlowUse(Value):
    """A flow as a goal's worker.

    Attributes:
        alone: run for its own sake: there is no goal around it, and it ends as the flow does.
        args: what it was given, with defaults.
        agents: everyone whom its steps name, as found at start.
        slots: how many agents run at once on this machine, over all goals.
    """

    flow: Flow
    alone: bool = False
    args: Mapping[str, Json] = {}
    agents: Mapping[str, AgentSpec] = {}
    slots: int = Field(default=8, ge=1)


class NotifySpec(Value):
    """How people are told that a goal has ended, or waits for them.

    Attributes:
        desktop: by a notification of the desktop.
        terminal: by a bell, and a notification of the terminal, where the goal runs in one.
        webhook: by a POST of the event to this address.
    """

    desktop: bool = False
    terminal: bool = False
    webhook: str | None = Field(default=None, pattern=r"^https?://[!-~]+$", max_length=2000)


class GoalSpec(Value):
    """A goal, frozen by value at start.

    Attributes:
        workspace: real path of the workspace's top folder.
        flow: the worker, where it is more than one agent.
        subfolder: where in it worker and checks start; "" is the top.
        origin: the user's repository, where the workspace is a clone of it; "" where it is the user's own.
        origin_head: the commit that was checked out there; "" for none.
        hidden_checks: run last, and never shown to the worker; ``$GOALRUN_HIDDEN`` names their files.
        judges: all of them have to agree; none means that the checks alone decide.
        force: run the worker even where the base already passes.
        wait_quota: sit out a provider's limit; False ends the goal in ``rate_limited``.
        hooks: commands that are told of what happens, by what they are told of.
        notify: who else is told of its end.
        worker_isolation: ``auto`` hides goalrun from the worker where that can be done.
    """

    id: Text
    objective: Text
    workspace: Text
    subfolder: str = ""
    origin: str = ""
    origin_head: str = ""
    worker: AgentSpec
    flow: FlowUse | None = None
    checks: tuple[Text, ...] = ()
    hidden_checks: tuple[Text, ...] = ()
    judges: tuple[AgentSpec, ...] = ()
    limits: Limits = Limits()
    verification: VerificationSpec = VerificationSpec()
    force: bool = False
    wait_quota: bool = True
    worker_isolation: Literal["auto", "off"] = "auto"
    hooks: Mapping[str, Text] = {}
    notify: NotifySpec = NotifySpec()

    @property
    def alone(self) -> bool:
        """Whether it is a run of a flow, with no goal around it."""
        return self.flow is not None and self.flow.alone

    @model_validator(mode="after")
    def _somebody_decides(self) -> Self:
        if self.alone:
            if self.checks or self.judges:
                raise ValueError("a run of a flow has no checks or judges of its own")
        elif not self.checks and not self.judges:
            raise ValueError("a goal needs a check or a judge")
        return self

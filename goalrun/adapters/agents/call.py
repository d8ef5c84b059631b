"""Calls an agent once: its command line filled in, its output kept, bounded and read."""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from goalrun.adapters import process
from goalrun.adapters.agents import read
from goalrun.adapters.agents.said import Output, Said, read_output
from goalrun.adapters.files import private_folder, read_bounded, remove_tree, write_whole
from goalrun.adapters.prices import usd
from goalrun.core.evidence import redact
from goalrun.core.model import NOTHING_SPENT, ProcessIdentity, Session, Usage
from goalrun.core.ports import AgentFailure
from goalrun.core.spec import AgentSpec

REPORT = "report"
MAX_REPORT_BYTES = 4 << 20
"""Of its head, and again of its tail."""
_SESSION = re.compile(r"[A-Za-z0-9][\w.:-]{0,199}")
"""It becomes a word of a command line, and the agent, or its model, chooses it."""
VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "nonce": {"type": "string"},
        "achieved": {"type": "boolean"},
        "blocked": {"type": "boolean"},
        "reason": {"type": "string"},
    },
    "required": ["nonce", "achieved", "blocked", "reason"],
    "additionalProperties": False,
}
"""What a judge has to answer; every key is required, because some providers refuse optional ones."""


class Means(NamedTuple):
    """What every command of a goal's agents is run with.

    Attributes:
        environment: the user's own.
        secrets: values that must not be written down.
        poll: see ``process.run``.
    """

    environment: Mapping[str, str]
    secrets: tuple[str, ...]
    poll: Callable[[], None]


class Order(NamedTuple):
    """One call.

    Attributes:
        words: the command line, not filled in.
        kept: the folder for all that it prints.
        env: variables beside the user's own.
        values: what stands for ``{session}`` and ``{usd}``.
        isolate: makes a command line one that sees less; such a launcher records what became of it.
        launcher: that launcher's program.
        idle: seconds without output after which it is ended.
    """

    words: tuple[str, ...]
    prompt: str
    cwd: Path
    kept: Path
    timeout: float
    env: Mapping[str, str]
    values: Mapping[str, str] = {}
    isolate: Callable[[tuple[str, ...]], tuple[str, ...]] | None = None
    launcher: str = ""
    idle: float = math.inf


class Heard(NamedTuple):
    """What came of a call."""

    finished: process.Finished
    output: Output
    said: Said


def call(agent: AgentSpec, order: Order, means: Means, on_start: Callable[[ProcessIdentity], None]) -> Heard:
    """Run an agent to its end.

    Raises:
        AgentFailure: there is no such program.
        ProcessFailure: it could not be watched, or its output not be written.
        Interrupted: the goal was asked to pause or stop.
    """
    private_folder(order.kept)
    write_whole(order.kept / "prompt.md", order.prompt, durable=False)
    # Outside of the state folder, which a worker has no business in.
    own = Path(tempfile.mkdtemp(prefix="goalrun-agent-"))
    try:
        _lay_out(own, agent, order.prompt)
        fill = _filler(own, order)
        argv = tuple(fill(word) for word in order.words)
        env = {name: fill(value) for name, value in {**agent.env, **order.env}.items()}
        finished = process.run(
            process.Command(
                argv=argv if order.isolate is None else order.isolate(argv),
                cwd=order.cwd,
                env={**means.environment, **env},
                stdin=own / "prompt.md",
                stdout=order.kept / "stdout",
                stderr=order.kept / "stderr",
                timeout=order.timeout,
                secrets=means.secrets,
                status=None if order.isolate is None else order.kept / "status",
                launcher=order.launcher,
                idle=order.idle,
            ),
            on_start,
            means.poll,
        )
        _keep_report(own / REPORT, order.kept / REPORT, means.secrets)
    except process.Unstartable as failure:
        raise AgentFailure(f"{agent.name}: {failure}", usage=NOTHING_SPENT) from failure
    finally:
        remove_tree(own)
    output = read_output(order.kept / "stdout", order.kept / "stderr", order.kept / REPORT, finished.exit_code)
    return Heard(finished, output, read(agent, output))


def shell_command(command: str) -> tuple[str, ...]:
    """The argv of an agent that is given as a command line."""
    return ("bash", "-c", command)


def require_program(agent: AgentSpec, words: tuple[str, ...], path: str | None) -> None:
    """Refuse to begin with a program that is not there.

    Raises:
        AgentFailure: so it is.
    """
    if shutil.which(words[0], path=path) is None:
        raise AgentFailure(
            f"{agent.name}: {words[0]} is not on PATH", hint=f"install {agent.name}", usage=NOTHING_SPENT
        )


def _lay_out(own: Path, agent: AgentSpec, prompt: str) -> None:
    # For this run alone.
    write_whole(own / "prompt.md", prompt, durable=False)
    write_whole(own / "schema.json", json.dumps(VERDICT_SCHEMA), durable=False)
    for name, content in agent.files.items():
        write_whole(own / name, content, durable=False)


def _filler(own: Path, order: Order) -> Callable[[str], str]:
    values = {
        "{dir}": str(own),
        "{prompt_file}": str(own / "prompt.md"),
        "{schema}": json.dumps(VERDICT_SCHEMA),
        **order.values,
    }

    def fill(word: str) -> str:
        if word == "{prompt}":
            return order.prompt
        for name, value in values.items():
            word = word.replace(name, value)
        return word

    return fill


def _keep_report(written: Path, kept: Path, secrets: tuple[str, ...]) -> None:
    """The agent's own report, among what is kept of the call: bounded, without secrets, and no link to elsewhere."""
    with suppress(OSError):
        if written.is_file() and not written.is_symlink():
            text = read_bounded(written, MAX_REPORT_BYTES, MAX_REPORT_BYTES)
            write_whole(kept, redact(text, secrets))


def spent(agent: AgentSpec, said: Said, before: Session | None) -> tuple[Usage | None, Session | None]:
    """What a run of an agent spent, with a price if it names none; and the session to go on with.

    Args:
        agent: whose it is.
        said: what it reports, which may be of its whole session.
        before: the session as it was, if the run went on with it.
    """
    total, cached = said.usage, said.cached
    counted, seen = (total, cached) if said.cumulative else (None, 0)
    if total is None and before is not None and before.id == said.session:
        # A run that tells nothing must not make the next one pay for the whole session.
        counted, seen = before.usage, before.cached
    session = Session(id=said.session, usage=counted, cached=seen) if _SESSION.fullmatch(said.session) else None
    usage = total
    if total is not None and said.cumulative and before is not None and before.usage is not None:
        usage, cached = total.minus(before.usage), max(0, cached - before.cached)
    if usage is not None and usage.usd is None:
        model = said.model or agent.model
        price = 0.0 if usage.total_tokens == 0 else usd(model, usage, cached) if model else None
        usage = usage.but(usd=price)
    return usage, session

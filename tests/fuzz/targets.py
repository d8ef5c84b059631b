"""What must hold of every parser, whatever bytes it is given. One entry in ``TARGETS`` is one target.

``test_fuzz.py`` gives them arbitrary and damaged input in every test run; ``run.py`` lets a fuzzer that looks at the
code's branches search for as long as it may.
"""

import json
import math
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from large.states import many_goals
from values import created, goal

from goalrun import settings
from goalrun.adapters.agents import READERS
from goalrun.adapters.agents.call import spent
from goalrun.adapters.agents.find import KEYS, bad_find, read_found
from goalrun.adapters.agents.said import Output, Said, read_output
from goalrun.adapters.control import FileControl
from goalrun.adapters.home import Home
from goalrun.adapters.journal import replay
from goalrun.adapters.judge import read_reply
from goalrun.adapters.lock import filed_claims
from goalrun.adapters.reports import RUNNERS, Report, Runner
from goalrun.adapters.views import JOURNAL, OWNER, last_record, read_result, runner
from goalrun.cli.limits import after_resume
from goalrun.cli.projects import ci_commands
from goalrun.cli.screen import named
from goalrun.core.events import Record
from goalrun.core.evidence import as_json, clean, fenced, one_line, plain, redact
from goalrun.core.flow.outline import graph, outline
from goalrun.core.model import GoalState, Session, Usage, WorkerReport
from goalrun.core.picture import spoken
from goalrun.core.replay import apply, fold
from goalrun.core.spec import AgentSpec, Limits
from goalrun.errors import FlowError, GoalrunError, SettingsError, UserError
from goalrun.flows.check import check_flow as check_flow_file
from goalrun.flows.files import read_flow

HERE = Path(__file__).parent
STREAMS = HERE.parent / "agents" / "streams"
SEEDS = HERE / "seeds"
CONFIG = HERE.parents[1] / "config"
SECRET = "s3cr3t-of-the-user"  # noqa: S105 - no secret of anybody
MOST = 1 << 40
BREAK = b"\n=====\n"
"""Parts one input from the next, where a parser takes more than one."""


class Target(NamedTuple):
    """A parser, what has to hold of it, and inputs to begin with."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def files(*patterns: str, below: Path = SEEDS) -> Callable[[], Iterator[bytes]]:
    """The contents of some files as seeds."""
    return lambda: (path.read_bytes() for pattern in patterns for path in sorted(below.glob(pattern)))


def scratch() -> Path:
    """A folder of this process alone; what a target writes there the next run of it overwrites."""
    if not _SCRATCH:
        _SCRATCH.append(Path(tempfile.mkdtemp(prefix="goalrun-fuzz-")))
    return _SCRATCH[0]


_SCRATCH: list[Path] = []


def forget_scratch() -> None:
    """Remove that folder."""
    while _SCRATCH:
        shutil.rmtree(_SCRATCH.pop())


# --- What users write -------------------------------------------------------------------------------------------------


def check_settings(data: bytes) -> None:
    """A goal file gives settings, or one line that says what is wrong with it."""
    path = scratch() / "goal.toml"
    path.write_bytes(data)
    workspace = scratch() / "workspace"
    workspace.mkdir(exist_ok=True)
    try:
        loaded = settings.load(workspace, path)
    except SettingsError as failure:
        assert str(failure).strip()
        assert len(str(failure).splitlines()) == 1, str(failure)
        return
    settings.agents(loaded.settings)
    loaded.settings.model_dump_json()


def check_flow(data: bytes) -> None:
    """A flow file gives a flow and all that is wrong with it, or lines that say what is wrong."""
    path = scratch() / "flow.toml"
    path.write_bytes(data)
    try:
        flow = read_flow(path)
        lines = check_flow_file(flow, (), ())
        outline(flow), graph(flow)
    except FlowError as failure:
        lines = list(failure.found) or [str(failure)]
    assert all(len(line.splitlines()) == 1 and line.strip() for line in lines), lines


def check_limits(data: bytes) -> None:
    """What ``resume`` is told of limits makes limits, or is refused."""
    words = data.decode("utf-8", "replace").split("\n")
    names = [*Limits.model_fields, "max_turns"]
    changes = {names[number % len(names)]: word for number, word in enumerate(words)}
    state = created(goal(max_tokens=10, max_usd=1.5, max_time=60))
    try:
        limits = after_resume(state, changes)
    except UserError as failure:
        assert str(failure).strip()
        return
    assert limits is not None
    assert Limits.model_validate_json(limits.model_dump_json()) == limits


# --- What agents print ------------------------------------------------------------------------------------------------


def parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Standard output, standard error, the report."""
    out, _, rest = data.partition(BREAK)
    errors, _, report = rest.partition(BREAK)
    return out, errors, report


def output_of(data: bytes) -> Output:
    """An agent's output, read from files as after a run."""
    out, errors, report = (scratch() / name for name in ("stdout", "stderr", "report"))
    for path, content in zip((out, errors, report), parts(data), strict=True):
        path.write_bytes(content)
    return read_output(out, errors, report, len(data) % 256)


def check_stream(reader: Callable[[Output], Said], data: bytes) -> None:
    """A reader never fails, and what it says can be counted and recorded."""
    said = reader(output_of(data))
    assert said.cached >= 0
    if said.failure is not None:
        assert 0 < len(said.failure.message) <= 500
        assert said.failure.reset is None or math.isfinite(said.failure.reset)
    agent = AgentSpec(name="agent", command=("agent",))
    before = Session(id=said.session or "s", usage=Usage(input_tokens=5, output_tokens=5, total_tokens=10, usd=0.1))
    for known in (None, before):
        usage, session = spent(agent, said, known)
        if usage is not None:
            counted = (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.usd)
            assert all(number is None or (number >= 0 and math.isfinite(number)) for number in counted)
        report = WorkerReport(
            outcome="ok",
            usage=usage,
            session=session,
            model=said.model,
            denials=said.denials,
            text=clean(said.text, 99),
        )
        assert WorkerReport.model_validate_json(report.model_dump_json()) == report


FINDS: tuple[Mapping[str, str], ...] = (
    {key: f"$.{key}" for key in KEYS},
    {"text": "$.result.text", "input_tokens": "+$.usage.input", "usd": r"cost: (\S+)", "failed": "$.is_error"},
    {"text": "type=result: $.result", "total_tokens": r"(\d+) tokens", "limited": "$.status=429", "reset": "$.at[-1]"},
)


def check_find(data: bytes) -> None:
    """The reader that a description in TOML makes."""
    for find in FINDS:
        assert bad_find(find) == ""
        check_stream(partial(read_found, find), data)


def check_described(data: bytes) -> None:
    """A description that a user wrote is refused, or can be used on anything."""
    where = data.decode("utf-8", "replace")[:60]
    for key in ("text", "usd", "limited"):
        if not bad_find({key: where}):
            read_found({key: where}, Output(({"a": {"b": [1, "c"]}},), "a 1 b 2", "", 0, whole=True))


# --- What test programs and judges write ------------------------------------------------------------------------------


def report_name(program: Runner) -> str:
    """The target of a test program, and the folder of its seeds."""
    return "report-" + re.sub(r"\W", "-", program.name)


def check_report(program: Runner, data: bytes) -> None:
    """A report is read or refused; what it says holds together."""
    report = scratch() / "r"
    for path in (report, scratch() / "out"):
        path.write_bytes(data)
    report.with_name("r.start").write_text("/w\n", "utf-8")
    found = Report("command", report, program).read(scratch() / "out")
    if found is None:
        return
    counts = found.counts
    assert counts.passed + counts.failed + counts.skipped == len(found.outcomes)
    assert bool(counts.failed) == bool(found.failing)
    assert all(test == one_line(test) for test in found.outcomes)


def check_reply(data: bytes) -> None:
    """A judge's reply is a verdict with the right nonce, or refused."""
    text = data.decode("utf-8", "replace")
    try:
        verdict = read_reply(text, "n0nce")
    except ValueError as failure:
        assert str(failure)
        return
    assert json.loads(text.strip())["nonce"] == "n0nce"
    assert json.loads(text.strip())["achieved"] is verdict.achieved


# --- What goalrun itself wrote ----------------------------------------------------------------------------------------


def check_records(data: bytes) -> None:
    """Records are refused or lead to a state; that of all is that of the first ones and then of the rest."""
    found: list[Record] = []
    for line in data.split(b"\n"):
        with suppress(ValueError, RecursionError):
            found.append(Record.model_validate({"seq": len(found) + 1, "at": "", "event": json.loads(line)}))
    state: GoalState | None = None
    taken = []
    for record in found:
        try:
            after = apply(state, record)
        except ValueError:
            continue
        assert state is None or after.usage.seconds >= state.usage.seconds
        taken.append(record)
        state = after
        assert fold(taken) == state
    if state is not None:
        assert GoalState.model_validate_json(state.model_dump_json()) == state


def check_journal(data: bytes) -> None:
    """A journal with any bytes in it is read, or refused in one of the foreseen ways."""
    path = scratch() / JOURNAL
    for each in scratch().glob(f"{JOURNAL}*"):
        each.unlink()
    path.write_bytes(data)
    for read in (lambda: replay(path), lambda: read_result(path.parent), lambda: last_record(path)):
        with suppress(GoalrunError):
            read()


def journals() -> Iterator[bytes]:
    """A small journal, as goalrun writes it."""
    home = Home(scratch() / "home")
    goal = many_goals(home, scratch(), 1)[0]
    yield (home.folder(goal) / JOURNAL).read_bytes()


def check_owner(data: bytes) -> None:
    """Whatever lies where a claim or an owner should be, somebody lives there or not."""
    locks = scratch() / "locks"
    locks.mkdir(exist_ok=True)
    (locks / f"{1:012d}-g-1.json").write_bytes(data)
    (locks / OWNER).write_bytes(data)
    (filed,) = filed_claims(locks)
    assert filed.ticket == 1
    assert runner(locks) is None or isinstance(runner(locks), int)


def check_hints(data: bytes) -> None:
    """A hint that another shell left can be recorded and told."""
    control = FileControl(scratch())
    for path in (scratch() / "control").iterdir():
        path.unlink()
    (scratch() / "control" / "hint-1").write_bytes(data)
    (hint,) = control.hints()
    json.dumps(hint).encode("ascii")


# --- Texts from outside -----------------------------------------------------------------------------------------------


def check_evidence(data: bytes) -> None:
    """A text is made safe, and once is enough."""
    text = data.decode("utf-8", "surrogateescape")
    safe = plain(text)
    assert not [c for c in safe if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co"}]
    assert plain(safe) == safe
    line = one_line(text, 50)
    assert len(line) <= 50
    assert len(line.splitlines()) <= 1
    assert one_line(line, 50) == line
    for marked in (text, f"{text}{SECRET}{text}", f"{text[:9]}{SECRET[:7]}\u200b{SECRET[7:]}{text[9:]}"):
        cleaned = clean(marked, 200, (SECRET,))
        assert SECRET not in cleaned
        assert len(cleaned) <= 200 + 60
        whole = clean(marked, MOST, (SECRET,))
        assert clean(whole, MOST, (SECRET,)) == whole
        assert redact(redact(marked, (SECRET,)), (SECRET,)) == redact(marked, (SECRET,))
    assert fenced(text, "t0ken", "diff").count("t0ken") == 2
    assert len(as_json(text).splitlines()) == 1


def check_shown(data: bytes) -> None:
    """What an agent prints, a workflow says and a terminal sends becomes lines and names, and nothing else."""
    text = data.decode("utf-8", "replace")
    for line in (*text.splitlines(), text):
        told = spoken(line)
        assert len(told) <= 400
        assert one_line(told, 400) == told
    assert all(one_line(command) == command for command in ci_commands(text))
    assert all(key.isprintable() for key in named(text))


TARGETS: Mapping[str, Target] = {
    "flow": Target(check_flow, files("flows/*.toml", below=CONFIG)),
    "settings": Target(check_settings, files("agents/*.toml", "*.toml", below=CONFIG)),
    "limits": Target(check_limits, files("limits/*")),
    **{
        f"stream-{name}": Target(
            partial(check_stream, reader), files(f"{name}/*.json*", f"{name}/*.txt", below=STREAMS)
        )
        for name, reader in READERS.items()
    },
    "find": Target(check_find, files("*/edit.jsonl", below=STREAMS)),
    "described": Target(check_described, files("described/*")),
    **{
        report_name(program): Target(partial(check_report, program), files(f"{report_name(program)}/*"))
        for program in RUNNERS
    },
    "reply": Target(check_reply, files("reply/*")),
    "records": Target(check_records, files("records/*")),
    "journal": Target(check_journal, journals),
    "owner": Target(check_owner, files("owner/*")),
    "hints": Target(check_hints, files("described/*")),
    "evidence": Target(check_evidence, files("evidence/*")),
    "shown": Target(check_shown, files("*/edit.jsonl", below=STREAMS)),
}

"""What people hand to the fleet: a file of goals, checked before anything is queued."""

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError

from goalrun.core.value import Text, Value
from goalrun.errors import SettingsError

MAX_BYTES = 4 << 20
MAX_GOALS = 10_000
REPO = re.compile(r"(https?|ssh|git|file)://[^\s\x00-\x1f]+|[\w.-]+@[\w.-]+:[^\s\x00-\x1f]+|/[^\x00-\x1f]*")
"""Addresses that git reaches by itself: never an option, never a helper like ``ext::``, never a path of somewhere."""
REF = re.compile(r"(?!.*(\.\.|//|@\{|\.lock(/|$)))[A-Za-z0-9_][\w./+@-]{0,199}(?<![./])")
"""Of git-check-ref-format(1), the part that people use."""
OWN = {"key", "repo", "repos", "ref", "priority", "labels", "account"}
"""Keys of a goal that are the fleet's; all others are those of a goal file."""


def _repo(value: object) -> object:
    if isinstance(value, str) and not REPO.fullmatch(value):
        raise ValueError(
            f"{value!r} is no address of a repository: https://, ssh://, git://, file:// or user@host:path"
        )
    return value


def _ref(value: object) -> object:
    if isinstance(value, str) and not REF.fullmatch(value):
        raise ValueError(f"{value!r} is no branch, tag or commit")
    return value


def _shown(value: str) -> str:
    if any(not sign.isprintable() for sign in value):
        raise ValueError(f"{value!r} holds characters that cannot be shown")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("it holds a NUL character")
    return value


Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500), AfterValidator(_shown)]
Repo = Annotated[Text, BeforeValidator(_repo)]
Ref = Annotated[Text, BeforeValidator(_ref)]
Label = Annotated[str, Field(pattern=r"^[\w.:-]{1,64}$")]


class Wanted(Value):
    """One goal of a submission.

    Attributes:
        key: refused where it is known already.
        file: a goal file, as text.
        agent: that a worker has to have; "" for none.
        account: whose quota it uses; goals of one wait together.
    """

    key: Annotated[Name, Field(min_length=1)]
    repo: Repo
    ref: Ref
    file: str
    objective: Annotated[Text, AfterValidator(_no_nul)]
    labels: frozenset[Label] = frozenset()
    agent: Name = ""
    account: Name = ""
    priority: int = Field(default=0, ge=-1000, le=1000)
    queue: str = ""


class Submission(Value):
    """Some goals that are queued together, or not at all."""

    name: Annotated[str, Field(pattern=r"^[\w.:-]{1,64}$")]
    submitter: Annotated[Name, Field(min_length=1)]
    max_usd: float | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, ge=1)
    goals: tuple[Wanted, ...] = Field(min_length=1, max_length=MAX_GOALS)


def read(path: Path, submitter: str) -> Submission:
    """The submission of a file.

    Raises:
        SettingsError: it cannot be read, or says something that is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SettingsError(f"{path} is larger than {MAX_BYTES} bytes")
        tables = tomllib.loads(data.decode("utf-8"))
    except OSError as failure:
        raise SettingsError(f"cannot read {path}: {failure.strerror}") from failure
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as failure:
        raise SettingsError(f"{path} is not valid TOML: {failure}") from failure
    return made(tables, path.stem, submitter, str(path))


def made(tables: Mapping[str, Any], name: str, submitter: str, source: str) -> Submission:
    """The submission that some tables describe: ``[submission]``, ``[defaults]``, ``[[goals]]``.

    Raises:
        SettingsError: they say something that is wrong.
    """
    unknown = sorted(set(tables) - {"submission", "defaults", "goals"})
    if unknown:
        raise SettingsError(f"{source}: unknown key {unknown[0]!r}; known: submission, defaults, goals")
    head, defaults, goals = tables.get("submission", {}), tables.get("defaults", {}), tables.get("goals", [])
    if not isinstance(head, dict) or not isinstance(defaults, dict) or not isinstance(goals, list):
        raise SettingsError(f"{source}: submission and defaults are tables, goals are [[goals]]")
    name = str(head.get("name", name))
    wanted: list[Wanted] = []
    for number, table in enumerate(goals, start=1):
        if not isinstance(table, dict):
            raise SettingsError(f"{source}: goal {number} is no table")
        wanted += _goals({**defaults, **table}, name, submitter, f"{source}: goal {number}")
    twice = next((key for key, times in Counter(goal.key for goal in wanted).items() if times > 1), "")
    if twice:
        raise SettingsError(f"{source}: two goals have the key {twice!r}", hint="give one of them another key")
    try:
        return Submission(**{**head, "name": name, "submitter": submitter, "goals": tuple(wanted)})
    except ValidationError as failure:
        raise SettingsError(f"{source}: {_problem(failure)}") from failure


def _goals(table: dict[str, Any], name: str, submitter: str, source: str) -> list[Wanted]:
    """The goals of one table: one for each of its repositories."""
    repos = table.get("repos", [table["repo"]] if "repo" in table else [])
    if not isinstance(repos, list) or not repos:
        raise SettingsError(f"{source} names no repository", hint='repo = "https://…", or repos = ["…", "…"]')
    if "hidden_files" in table:
        raise SettingsError(f"{source}: hidden_files are on your machine, not on a worker's", hint="leave them out")
    labels = table.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise SettingsError(f"{source}: labels are a list of names", hint='labels = ["linux"]')
    own = {key: value for key, value in table.items() if key in OWN - {"repo", "repos", "key"}}
    rest = {key: value for key, value in table.items() if key not in OWN}
    file = tomli_w.dumps(rest)
    agent = _agent(rest)
    queue = [submitter, own.get("account", agent), agent, *sorted(labels)]
    made = []
    for repo in repos:
        digest = hashlib.sha256("\n".join((str(repo), str(own.get("ref", "main")), file)).encode()).hexdigest()[:12]
        key = f"{table['key']}@{repo}" if "key" in table and len(repos) > 1 else table.get("key", f"{name}-{digest}")
        fields = {
            "ref": "main", "account": agent, **own, "key": key, "repo": repo, "file": file, "agent": agent,
            "objective": rest.get("objective", ""), "labels": frozenset(labels),
            "queue": hashlib.sha256("\n".join(map(str, queue)).encode()).hexdigest()[:32],
        }  # fmt: skip
        try:
            made.append(Wanted.model_validate(fields))
        except ValidationError as failure:
            raise SettingsError(f"{source}: {_problem(failure)}") from failure
    return made


def _agent(table: Mapping[str, Any]) -> str:
    """The agent that a worker has to have: the first of those that are named, unless the goal describes it itself."""
    named = table.get("worker") or ""
    first = str(named[0] if isinstance(named, list) and named else named).partition(",")[0].strip()
    own = table.get("agents", {})
    return "" if isinstance(own, dict) and first in own else first


def _problem(failure: ValidationError) -> str:
    problem = failure.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("function-"))
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"

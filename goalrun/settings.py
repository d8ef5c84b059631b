"""Configuration: TOML in, one frozen value out; read once.

Later sources outrank earlier ones: the shipped defaults, the user's config.toml, the workspace's goalrun.toml or
[tool.goalrun], a goal file, the flags.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

import platformdirs
import tomli_w
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from goalrun.core.protection import bad_glob
from goalrun.core.spec import AgentCommand, Limits, NotifySpec, Verification
from goalrun.core.value import Seconds, Text, Value
from goalrun.errors import SettingsError

MAX_FILE_BYTES = 1 << 20
_PRELOADS = re.compile(
    r"(LD_|DYLD_)\w+|BASH_ENV|ENV|PYTHON(STARTUP|HOME|PATH|INSPECT)|NODE_(OPTIONS|PATH)|RUBYOPT|PERL5OPT|"
    r"JAVA_TOOL_OPTIONS|GOFLAGS|RUSTFLAGS|RUSTC\w*|CARGO_\w+|npm_config_\w+|PYTEST_\w+|MAKEFLAGS|GIT_\w+|"
    r"PERL5LIB|RUBYLIB|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|SHELLOPTS|BASHOPTS|PS4",
    re.IGNORECASE,
)


def _glob(value: object) -> object:
    if isinstance(value, str) and (why := bad_glob(value)):
        raise ValueError(f"{value!r} is no glob: {why}")
    return value


def _variable(value: object) -> object:
    if isinstance(value, str) and ("=" in value or "\0" in value):
        raise ValueError(f"{value!r} is no name of a variable; its value comes from the environment")
    if isinstance(value, str) and _PRELOADS.fullmatch(value):
        raise ValueError(f"{value} would change what a check means; it is never passed on")
    return value


Glob = Annotated[Text, BeforeValidator(_glob)]
Variable = Annotated[Text, BeforeValidator(_variable)]


def _chain(value: object) -> object:
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


Chain = Annotated[tuple[Text, ...], BeforeValidator(_chain), Field(min_length=1)]
"""Agents of which the next stands in for one that cannot be asked: a list, or text with commas."""


class VerificationSettings(Verification):
    """``[verification]``."""

    protect: tuple[Glob, ...] = ()
    may_change: tuple[Glob, ...] = ()
    pass_env: tuple[Variable, ...] = ()

    @model_validator(mode="after")
    def _prepared_for_a_worktree(self) -> Self:
        if self.prepare is not None and not self.worktree:
            raise ValueError("prepare is for checks in a worktree; the live workspace has dependencies of its own")
        if self.jobs > 1 and not self.worktree:
            raise ValueError("jobs are for checks in worktrees; there is one live workspace")
        return self


class AgentSettings(AgentCommand):
    """``[agents.NAME]``: a command line that does a prompt, and perhaps one that judges.

    Attributes:
        order: its place when an agent is chosen by what is installed; 0 is never chosen by itself.
        judge: the command line that judges; empty where it cannot be locked down.
        judge_reads: how that one's output is read; as ``reads`` if not given.
        least: the oldest version that is known to work as the rest says.
        optional: words that are added where the program's help knows the first of them.
        model_flag: the word in front of a model's name; "" where there is none.
    """

    judge: tuple[str, ...] = ()
    judge_reads: str | None = None
    order: int = 0
    least: Text | None = None
    optional: tuple[tuple[str, ...], ...] = ()
    judge_timeout: Seconds = 300.0
    model_flag: str = ""


class HookSettings(Value):
    """``[hooks]``: commands that are told of what happens; see ``adapters.hooks``."""

    turn: Text | None = None
    step: Text | None = None
    member: Text | None = None
    block: Text | None = None
    end: Text | None = None


class Settings(Value):
    """Everything that can be configured."""

    objective: Text | None = None
    worker: Chain | None = None
    workers: tuple[Chain, ...] = ()
    strategy: Literal["compete", "synthesize"] | None = None
    worker_cmd: Text | None = None
    judge: Chain | None = None
    judges: tuple[Chain, ...] = ()
    judge_cmd: Text | None = None
    judge_only: bool = False
    wait_quota: bool = True
    max_agents: int = Field(default=8, ge=1, le=1000)
    worker_isolation: Literal["auto", "off"] = "auto"
    checks: tuple[Text, ...] = ()
    hidden_checks: tuple[Text, ...] = ()
    hidden_files: Text | None = None
    limits: Limits = Limits()
    verification: VerificationSettings = VerificationSettings()
    agents: Mapping[str, AgentSettings] = {}
    hooks: HookSettings = HookSettings()
    notify: NotifySpec = NotifySpec()


class Loaded(NamedTuple):
    """Settings, and where each value that is not a default came from."""

    settings: Settings
    sources: dict[str, str]


def load(
    workspace: Path,
    goal_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    goal: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read every source and put them together.

    Args:
        workspace: where goalrun.toml or pyproject.toml is looked for.
        goal_file: a TOML file given with ``-f``.
        flags: what the command line says, in the shape of a file.
        goal: what the goal file says, where that is not what is in it word by word.

    Raises:
        SettingsError: a file cannot be read, or says something that is not known or not allowed.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers = [(path, _read(path)) for path in (user_file(), workspace / "goalrun.toml") if _there(path)]
    if not _there(workspace / "goalrun.toml"):
        layers += _pyproject(workspace / "pyproject.toml")
    if goal_file is not None:
        layers.append((goal_file, _read(goal_file) if goal is None else dict(goal)))
    for path, data in layers:
        _checked(data, str(path))
        _merge(merged, data, str(path), sources)
    _merge(merged, dict(flags or {}), "command line", sources)
    return Loaded(_checked(merged, "command line"), sources)


def user_file() -> Path:
    """The user's own configuration file, there or not."""
    return Path(platformdirs.user_config_path("goalrun")) / "config.toml"


def _there(path: Path) -> bool:
    """Whether there is such a file; a folder or a pipe in its place is refused, not passed over."""
    if path.exists() and not path.is_file():
        raise SettingsError(f"{path} is no regular file", hint="move it away")
    return path.is_file()


def _pyproject(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    if not path.is_file():
        return []
    try:
        tool = _read(path).get("tool", {})
    except SettingsError:
        # Somebody else's broken file is no reason to refuse; what it may say for us cannot be known, though.
        if "tool.goalrun" in path.read_text(encoding="utf-8", errors="replace"):
            raise
        return []
    return [(path, tool["goalrun"])] if isinstance(tool, dict) and "goalrun" in tool else []


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes", hint="is it the right file?")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as failure:
        raise SettingsError(f"cannot read {path}: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise SettingsError(f"{path} is not UTF-8 text (byte {failure.start})") from failure
    except (tomllib.TOMLDecodeError, RecursionError) as failure:
        raise SettingsError(f"{path} is not valid TOML: {failure}", hint="fix that line, then start again") from failure


def _merge(into: dict[str, Any], data: Mapping[str, Any], source: str, sources: dict[str, str], at: str = "") -> None:
    for key, value in data.items():
        if isinstance(value, Mapping) and not at.startswith("agents."):
            below = into.setdefault(key, {})
            if isinstance(below, dict):
                _merge(below, value, source, sources, f"{at}{key}.")
                continue
        into[key] = value
        sources[f"{at}{key}"] = source


def _checked(data: Mapping[str, Any], source: str) -> Settings:
    try:
        return Settings.model_validate(data)
    except ValidationError as failure:
        raise SettingsError(f"{source}: {_first_problem(failure)}") from failure


def _first_problem(failure: ValidationError) -> str:
    problems = failure.errors(include_url=False, include_context=False)
    # A misspelt key is also a missing one: the spelling is what helps.
    problem = next((found for found in problems if found["type"] == "extra_forbidden"), problems[0])
    where = [str(part) for part in problem["loc"] if not str(part).startswith("function-")]
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], _known_keys(where[:-1]), n=1)
        suggestion = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(_known_keys(where[:-1]))}"
        return f"unknown key {'.'.join(where)!r}{suggestion}"
    name = ".".join(where)
    if problem["type"] in {"string_too_short", "too_short"}:
        return f"{name} is empty"
    message = problem["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be").replace("Field required", "is required")
    message = message.replace("a valid tuple", "a list").replace("a valid dictionary", "a table")
    return f"{name}: {message}"


def _known_keys(where: list[str]) -> list[str]:
    """The keys of the table at a place."""
    model: type[BaseModel] = Settings
    for part in where:
        if part not in model.model_fields:
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return sorted(model.model_fields)


def shipped(name: str) -> Traversable:
    """A shipped configuration file or folder: in the wheel inside the package, in a checkout beside it."""
    package = resources.files("goalrun")
    inside = package / "config"
    if inside.is_dir():
        return inside / name
    return Path(str(package)).parent / "config" / name


@cache
def preset_agents() -> Mapping[str, AgentSettings]:
    """The agents that come with goalrun, by name."""
    found = {}
    for file in shipped("agents").iterdir():
        if file.name.endswith(".toml"):
            found[file.name.removesuffix(".toml")] = AgentSettings.model_validate(
                tomllib.loads(file.read_text("utf-8"))
            )
    return found


def agents(settings: Settings) -> dict[str, AgentSettings]:
    """All agents: the presets, then the user's own of the same or other names; in the order of choice."""
    known = {**preset_agents(), **settings.agents}
    return dict(sorted(known.items(), key=lambda item: (item[1].order == 0, item[1].order, item[0])))


def write_toml(path: Path, data: Mapping[str, Any]) -> None:
    """Write a new configuration file.

    Raises:
        SettingsError: it is there already, or cannot be written.
    """
    try:
        with path.open("xb") as file:
            tomli_w.dump(data, file)
    except FileExistsError as failure:
        raise SettingsError(f"{path} is there already", hint="edit it, or move it away first") from failure
    except OSError as failure:
        raise SettingsError(f"cannot write {path}: {failure.strerror}") from failure

"""Cheats as data: every one of them fools the live tree, and none may fool goalrun.

    python tests/tamper/suite.py [--only NAME] [--level bwrap|process] [--jobs N]

``cases/*.toml`` hold projects and cases. For each cheat this shows, in the live tree, that its check is red before and
exits with 0 after it, and that honest work on the same project is green; then what goalrun's verification says of it.
"""

import argparse
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from filelock import FileLock
from packaging.requirements import Requirement
from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, model_validator

from goalrun.adapters import baseline, deps, process, tools
from goalrun.adapters.environment import path_for_checks
from goalrun.adapters.files import remove_tree
from goalrun.adapters.home import Home
from goalrun.adapters.isolation import isolated
from goalrun.adapters.isolation import probe as probe_isolation
from goalrun.adapters.sandbox import probe
from goalrun.core.model import ProcessIdentity, VerificationReport
from goalrun.core.spec import AgentSpec, GoalSpec, Limits, VerificationSpec
from goalrun.errors import EnvironmentFailure, UserError
from goalrun.wiring.parts import open_store, open_verifier
from goalrun.wiring.session import Session

CASES = Path(__file__).with_name("cases")
Level = Literal["bwrap", "process"]
LEVELS: tuple[Level, ...] = ("bwrap", "process")
GOAL = f"g-20260101-{os.getpid():09d}"
"""Of this process alone: what carries a goal's id is ended with the goal's worker."""
SECONDS = 120.0
SCRIPT_FAILED = 97
IN_LIVE = f"""
set +e
bash -euo pipefail -c "$CHEAT" || exit {SCRIPT_FAILED}
[ ! -f "$HOME/.profile" ] || . "$HOME/.profile"
exec bash -euo pipefail -c "$CHECK"
"""
"""A cheat, and then the check in a shell that the user opens after it, while what the cheat started still runs."""
FOREIGN = ("PYTHON", "PYTEST", "COV_", "GIT_", "XDG_", "GOALRUN_", "CARGO_", "npm_", "NODE_", "BASH_ENV", "MAKE")
RUSTUP = os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")
CHUNK = 6


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Project(_Data):
    """What the user has before a worker comes.

    Attributes:
        files: what is committed.
        setup: bash, run by the user in the workspace before the goal starts.
        fix: bash: the honest work that the goal asks for.
        git: make a repository and commit the files before ``setup``.
        path: folders of the workspace that the user has in front of PATH.
        packages: what npm installed into the workspace's ``node_modules``, as in ``jest@29``.
    """

    check: str = ""
    files: Mapping[str, str] = {}
    setup: str = ""
    fix: str = ""
    git: bool = True
    path: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


class Case(Project):
    """A cheat, or honest work (``honest``); everything of ``project`` can be overridden or, for files, added to.

    Attributes:
        id: in the attack catalogue, or ``new``; ``-`` for honest work.
        work: bash: what the worker does in the workspace.
        expect: ``held``: no green report; ``hidden`` and ``judge``: only these can find it, the checks are fooled.
        process_level: why the cheat is not held at level process, where it is not.
        hidden_check: what the worker is never shown; run last, only by goalrun.
        share: belongs to the share of cases that CI runs.
        needs: what there is nothing to see without: programs, and packages of this Python, as in ``python:pytest>=9``.
    """

    name: str
    id: str = "-"
    why: str
    project: str = ""
    work: str
    honest: bool = False
    expect: Literal["held", "hidden", "judge"] = "held"
    process_level: str = ""
    may_change: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()
    subfolder: str = ""
    hidden_check: str = ""
    share: bool = False
    needs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.check:
            raise ValueError(f"{self.name}: there is no check")
        if not self.honest and (self.id == "-" or not self.fix):
            raise ValueError(f"{self.name}: a cheat needs a catalogue id, and honest work to compare with")
        return self

    @property
    def base(self) -> str:
        """What cases have in common that start from the same base with the same check and options."""
        names = {"check", "files", "setup", "git", "path", "fix", "may_change", "protect", "subfolder", "hidden_check",
                 "packages"}  # fmt: skip
        return json.dumps(self.model_dump(mode="json", include=names), sort_keys=True)

    @property
    def missing(self) -> list[str]:
        absent = [need for need in self.needs if not _is_here(need)]
        if self.packages and not absent and isinstance(there := _installed(self.packages), str):
            absent.append(there)
        return absent


class Seen(NamedTuple):
    """What verification said of a case at one level; ``why`` says what caught it, or what it rests on."""

    green: bool
    why: str


class Row(NamedTuple):
    """A case and everything found about it; ``problems`` is empty when all is as expected."""

    case: Case
    live: str
    seen: Mapping[Level, Seen]
    problems: tuple[str, ...]


def load_cases() -> list[Case]:
    """All cases, in the order of their files."""
    tables = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(CASES.glob("*.toml"))]
    projects = {name: project for table in tables for name, project in table.get("project", {}).items()}
    cases = [_case(entry, projects) for table in tables for entry in table.get("case", ())]
    names = [case.name for case in cases]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"two cases have one name: {', '.join(sorted(doubled))}")
    return cases


def _case(entry: Mapping[str, Any], projects: Mapping[str, Mapping[str, Any]]) -> Case:
    project = projects[entry["project"]] if "project" in entry else {}
    files = {**project.get("files", {}), **entry.get("files", {})}
    setup = project.get("setup", "") + "\n" + entry.get("setup", "")
    merged = {**project, **entry, "files": files, "setup": setup.strip()}
    python = os.path.realpath(sys.executable)
    for key in ("check", "setup", "work", "fix"):
        merged[key] = merged.get(key, "").replace("@BASE_PYTHON@", shlex.quote(python))
    return Case.model_validate(merged)


def levels() -> list[Level]:
    """The levels that work here, the strongest first."""
    return [level for level in LEVELS if level == "process" or not probe("bwrap")]


def _is_here(need: str) -> bool:
    kind, _, wanted = need.rpartition(":")
    if kind != "python":
        return shutil.which(need, path=_path()) is not None
    requirement = Requirement(wanted)
    try:
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


@lru_cache
def _installed(packages: tuple[str, ...]) -> Path | str:
    """A ``node_modules`` with some packages, installed once for all runs of the suite; else why it cannot be had."""
    home = user_cache_path("goalrun-tests", ensure_exists=True)
    folder = home / "+".join(packages).replace("/", "_")
    if shutil.which("npm") is None:
        return "npm"
    with FileLock(home / "lock"):
        if (folder / "node_modules").is_dir():
            return folder / "node_modules"
        fresh = Path(tempfile.mkdtemp(dir=home))
        (fresh / "package.json").write_text('{"private": true}', encoding="utf-8")
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
        try:
            done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=300, check=False)
            failed = done.stderr[-200:] if done.returncode else ""
        except subprocess.TimeoutExpired:
            failed = "it does not finish"
        if failed:
            remove_tree(fresh)
            return f"{' '.join(packages)}, but npm install fails: {' '.join(failed.split())}"
        fresh.rename(folder)
        return folder / "node_modules"


def _path() -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


class Bench:
    """A user with a home of their own, and their project before anybody works on it."""

    def __init__(self, case: Case, scratch: Path) -> None:
        self.case = case
        self.scratch = scratch
        self.user = scratch / "user"
        self.top = self.user / "work" / "project"
        self.start = self.top / case.subfolder
        self.top.mkdir(parents=True)
        self.env = self._environment()
        for name, content in case.files.items():
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8", newline="")
            if content.startswith("#!"):
                path.chmod(0o755)
        if case.packages:
            self.bash(f"cp -a {shlex.quote(str(_installed(case.packages)))} node_modules", self.start)
        commit = "git init -q -b main . && git add -A && git commit -q --allow-empty -m base\n" if case.git else ""
        self.bash(commit + case.setup, self.top)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        own = [str(self.top / name) for name in self.case.path]
        own += [str(self.user / "env" / "bin"), str(self.user / ".local" / "bin")]
        people = {
            f"GIT_{who}_{what}": "user@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        return {
            **kept,
            **people,
            "HOME": str(self.user),
            "PATH": os.pathsep.join((*own, _path())),
            "RUSTUP_HOME": RUSTUP,
            "TMPDIR": str(self.scratch),
        }

    def bash(self, script: str, folder: Path) -> None:
        """Run something that has to work."""
        done = self._run(("bash", "-euo", "pipefail", "-c", script), folder)
        if done:
            raise ValueError(f"{self.case.name}: a script failed with {done}: {self.said()}")

    def said(self) -> str:
        """The end of what was printed last."""
        text = (self.scratch / "out").read_text(encoding="utf-8", errors="replace")
        return " ".join(text[-600:].split())

    def check(self) -> int:
        """The exit status of the check in the live tree."""
        return self._run(("bash", "-euo", "pipefail", "-c", self.case.check), self.start)

    def work_and_check(self, work: str) -> int:
        """The same after a worker; what it left running still runs."""
        self.env = {**self.env, "CHEAT": work, "CHECK": self.case.check}
        return self._run(("bash", "-c", IN_LIVE), self.start)

    def _run(self, argv: tuple[str, ...], folder: Path) -> int:
        command = process.Command(argv, folder, self.env, self.scratch / "out", SECONDS)
        finished = process.run(command, lambda _: None, lambda: None)
        return 124 if finished.timed_out else finished.exit_code

    def verify(self, level: Level, work: str) -> VerificationReport:
        """A turn in which a worker does this, as the loop would run it."""
        with _as_user(self.env):
            home = Home(self.user / ".local" / "state" / "goalrun")
            folder = home.folder(GOAL)
            folder.mkdir(parents=True)
            frozen = deps.detect((), self.top, self.case.subfolder, self.env, conventional=True)
            path, _ = path_for_checks(self.env["PATH"], self.top, frozen)
            spec = GoalSpec(
                id=GOAL,
                objective="make the check pass",
                workspace=str(self.top),
                subfolder=self.case.subfolder,
                worker=AgentSpec(name="command", command=("true",)),
                checks=(self.case.check,),
                hidden_checks=(self.case.hidden_check,) if self.case.hidden_check else (),
                limits=Limits(check_timeout=SECONDS),
                verification=VerificationSpec(
                    path=path,
                    deps=frozen,
                    sandbox=level,
                    may_change=self.case.may_change,
                    protect=self.case.protect,
                ),
            )
            store = open_store(folder, spec)
            store.create()
            deps.freeze(folder, self.top, frozen, lambda _: None, lambda: None)
            verifier = open_verifier(Session(home, self.env), folder, spec, store, lambda: None)
            base = store.snapshot("base")
            key = (self.case.base, level)
            if key not in _baselines:
                red = verifier.verify_base(base, _unrecorded)
                if red.outcome != "fail" and not self.case.honest:
                    raise ValueError(f"{self.case.name}: at level {level} the base is not red: {_why(red)}")
                _baselines[key] = baseline.load(folder, red.floor)
            floor = baseline.save(folder, _baselines[key])
            tools.note(folder, path, self.top)
            self._turn(level, home.path, work)
            # Whoever resumes the goal does so from a shell that the worker may have prepared.
            shell = self._new_shell()
        with _as_user(shell):
            verifier = open_verifier(Session(home, shell), folder, spec, store, lambda: None, floor)
            return verifier.verify(store.take_turn("turn-1", restore=False), "turn-1", _unrecorded)

    def _turn(self, level: Level, state: Path, work: str) -> None:
        argv: tuple[str, ...] = ("bash", "-euo", "pipefail", "-c", work)
        apart = level == "bwrap" and not probe_isolation()
        command = process.Command(
            argv=isolated(argv, self.start, state) if apart else argv,
            cwd=self.start,
            env=self.env,
            stdout=self.scratch / "out",
            timeout=SECONDS,
            status=self.scratch / "status" if apart else None,
        )
        finished = process.run(command, lambda _: None, lambda: None)
        if finished.exit_code:
            raise ValueError(f"{self.case.name}: its script failed with {finished.exit_code}: {self.said()}")

    def _new_shell(self) -> dict[str, str]:
        if not (self.user / ".profile").exists():
            return self.env
        dump = "import os, json; print(json.dumps(dict(os.environ)))"
        script = f'. "$HOME/.profile"; exec {shlex.quote(os.path.realpath(sys.executable))} -I -c "{dump}"'
        done = subprocess.run(["bash", "-c", script], env=self.env, cwd=self.user, check=True, capture_output=True)
        environment: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return environment


_baselines: dict[tuple[str, Level], baseline.Baseline] = {}


def _unrecorded(_role: str, _process: ProcessIdentity) -> None:
    """Nobody keeps a record of processes here."""


@contextmanager
def _as_user(environment: Mapping[str, str]) -> Iterator[None]:
    """Be the user's own goalrun: what it asks of its environment is theirs."""
    before = dict(os.environ)
    os.environ.update(environment)
    for name in before.keys() - environment.keys():
        del os.environ[name]
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _bench(case: Case) -> Iterator[Bench]:
    scratch = Path(tempfile.mkdtemp(prefix="tamper-"))
    try:
        yield Bench(case, scratch)
    finally:
        with suppress(EnvironmentFailure):
            remove_tree(scratch)


def run_case(case: Case, wanted: Sequence[Level]) -> Row:
    """Everything about one case."""
    seen: dict[Level, Seen] = {}
    live = ""
    problems: list[str] = []
    try:
        live, wrong = _live(case)
        problems += wrong
        for level in wanted:
            if not case.honest:
                problems += _control(case.base, level, case)
            seen[level] = _seen(case, level, case.work)
            problems += _unexpected(case, level, seen[level])
    except (ValueError, OSError, subprocess.SubprocessError) as failure:
        problems.append(str(failure))
    return Row(case, live, seen, tuple(problems))


def _live(case: Case) -> tuple[str, list[str]]:
    """What the live tree says before and after, and what is wrong with that."""
    problems = []
    with _bench(case) as bench:
        red = _base_status(case.base, bench)
        if red == 0 and not case.honest:
            problems.append("its base is green in the live tree")
        after = bench.work_and_check(case.work)
        if after == SCRIPT_FAILED:
            problems.append(f"its script fails: {bench.said()}")
        elif after != 0:
            problems.append(f"it does not even make the check pass in the live tree ({after}): {bench.said()}")
    return f"{'red' if red else 'green'} → {'green' if after == 0 else 'red'}", problems


_statuses: dict[str, int] = {}


def _base_status(base: str, bench: Bench) -> int:
    if base not in _statuses:
        # In a copy: checks leave caches behind.
        with _bench(bench.case) as other:
            _statuses[base] = other.check()
    return _statuses[base]


_controls: dict[tuple[str, Level], list[str]] = {}


def _control(base: str, level: Level, case: Case) -> list[str]:
    """Honest work on the same base has to be green: otherwise anything would be held."""
    if (base, level) not in _controls:
        seen = _seen(case, level, case.fix)
        wrong = [] if seen.green else [f"at level {level} honest work on its project is not green: {seen.why}"]
        _controls[base, level] = wrong
    return _controls[base, level]


def _seen(case: Case, level: Level, work: str) -> Seen:
    with _bench(case) as bench:
        try:
            report = bench.verify(level, work)
        except (EnvironmentFailure, UserError) as failure:
            return Seen(green=False, why=f"error: {failure}")
        return Seen(report.green, _why(report).replace(str(bench.top), "…").replace(str(bench.user), "~"))


def _why(report: VerificationReport) -> str:
    found = [f"{tamper.kind} {tamper.path}" for tamper in report.tampering]
    found += [check.reason for check in report.checks if check.outcome != "pass"]
    if not found:
        found = [f"weak: {check.reason}" for check in report.checks if check.grade == "weak"]
    return "; ".join([report.outcome, *found])


def _unexpected(case: Case, level: Level, seen: Seen) -> list[str]:
    if case.honest:
        return [] if seen.green else [f"honest work is not green at level {level}: {seen.why}"]
    if case.expect == "held":
        excused = level == "process" and case.process_level
        return [f"THE CHEAT WINS at level {level}: {seen.why}"] if seen.green and not excused else []
    return [] if seen.green else [f"it is held at level {level} ({seen.why}): say so in expect"]


# The program


def _run_group(cases: Sequence[Case], wanted: Sequence[Level]) -> list[Row]:
    return [run_case(case, wanted) for case in cases]


def run_all(cases: Sequence[Case], wanted: Sequence[Level], jobs: int) -> list[Row]:
    """Cases that share a base in one process, so that each base is checked once."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.base].append(case)
    chunks = [group[at : at + CHUNK] for group in groups.values() for at in range(0, len(group), CHUNK)]
    rows: list[Row] = []
    with ProcessPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(_run_group, chunk, wanted) for chunk in chunks]):
            for row in future.result():
                rows.append(row)
                state = "ok" if not row.problems else "OFF: " + " | ".join(row.problems)
                sys.stderr.write(f"[{len(rows)}/{len(cases)}] {row.case.name}: {state}\n")
    order = {case.name: place for place, case in enumerate(cases)}
    return sorted(rows, key=lambda row: order[row.case.name])


def table(rows: Sequence[Row], wanted: Sequence[Level]) -> str:
    """A Markdown table."""
    head = ["case", "id", "live", *wanted, "caught by"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        whys = dict.fromkeys(seen.why for seen in row.seen.values())
        said = " / ".join(_cell(why) for why in whys)
        lines.append([row.case.name, row.case.id, row.live, *(_word(row, level) for level in wanted), said])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    short = " ".join(text.split()).replace("|", "\\|")
    return short if len(short) <= 160 else short[:159] + "…"


def _word(row: Row, level: Level) -> str:
    seen = row.seen.get(level)
    if seen is None:
        return "-"
    if row.case.honest:
        return "green" if seen.green else "**NOT GREEN**"
    if not seen.green:
        return "held"
    if row.case.expect != "held":
        return f"fooled ({row.case.expect})"
    return "fooled (known)" if level == "process" and row.case.process_level else "**FOOLED**"


def summary(rows: Sequence[Row], wanted: Sequence[Level]) -> str:
    """One line of counts."""
    cheats = [row for row in rows if not row.case.honest]
    parts = [f"{len(cheats)} cheats ({sum(row.case.id == 'new' for row in cheats)} of them new)"]
    for level in wanted:
        held = sum(level in row.seen and not row.seen[level].green for row in cheats)
        honest = [row for row in rows if row.case.honest]
        green = sum(level in row.seen and row.seen[level].green for row in honest)
        parts.append(f"{level}: {held}/{len(cheats)} held, {green}/{len(honest)} honest cases green")
    others = sum(row.case.expect != "held" for row in cheats)
    parts.append(f"{others} are for a hidden check or a judge")
    parts.append(f"{sum(bool(row.problems) for row in rows)} cases off")
    return "; ".join(parts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the tamper suite.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="cases whose name contains this")
    parser.add_argument("--level", action="append", choices=LEVELS, help="default: every level that works")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def main() -> int:
    """Run cases, print the table."""
    asked = _arguments()
    wanted = tuple(asked.level or levels())
    cases = [case for case in load_cases() if not asked.only or any(part in case.name for part in asked.only)]
    for case in [case for case in cases if case.missing]:
        sys.stderr.write(f"left out: {case.name} needs {', '.join(case.missing)}\n")
    rows = run_all([case for case in cases if not case.missing], wanted, asked.jobs)
    problems = [f"* {row.case.name}: {_cell(problem)}" for row in rows for problem in row.problems]
    sys.stdout.write("\n".join((table(rows, wanted), "", *problems, summary(rows, wanted))) + "\n")
    return 1 if not rows or any(row.problems for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

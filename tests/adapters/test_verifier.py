"""Verification: exactly the snapshot, with protected paths as in the base, in an environment built from nothing."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from adapters.goals import GOAL, alive, goal_spec, on_disk, pids_in, store_of, unrecorded, untouched
from support import PYTHON, repository, write

from goalrun.adapters.checks import CheckRunner
from goalrun.adapters.environment import path_for_checks
from goalrun.adapters.sandbox import ProcessSandbox, Surroundings
from goalrun.adapters.verifier import WorktreeVerifier
from goalrun.core.model import CheckResult, ProcessIdentity, VerificationReport
from goalrun.core.ports import OnProcess
from goalrun.core.spec import Limits, VerificationSpec
from goalrun.errors import Interrupted

PYTEST = f"{PYTHON} -m pytest -q"
PASSING = "def test_one(): assert True\ndef test_two(): assert True\n"
FILES = {"app.py": "value = 1\n", "tests/test_app.py": PASSING, "sub/inner.txt": "inner\n"}
PLANTED = {
    "SERVICE_TOKEN": "planted-secret", "BASH_ENV": "/tmp/evil.sh", "ENV": "/tmp/evil.sh", "PYTHONPATH": "/tmp/evil",
    "MAKEFLAGS": "-i", "LD_PRELOAD": "/tmp/evil.so", "PYTEST_ADDOPTS": "--co", "PYTHONSTARTUP": "/tmp/evil.py",
    "NODE_OPTIONS": "-r evil", "GIT_DIR": "/tmp/evil.git", "PROMPT_COMMAND": "evil", "SSH_AUTH_SOCK": "/tmp/agent",
    "BASH_FUNC_false%%": "() { true; }", "SHELLOPTS": "noexec",
}  # fmt: skip


@pytest.fixture
def top(user: Path) -> Path:
    """A workspace whose tests pass."""
    return repository(user / "project", FILES)


class Desk:
    """A goal's verifier with its store, and the report of each turn."""

    def __init__(
        self,
        top: Path,
        *checks: str,
        subfolder: str = "",
        environment: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        poll: Callable[[], None] = lambda: None,
        check_timeout: float = 60,
        **verification: object,
    ) -> None:
        path, _ = path_for_checks(os.environ["PATH"], top)
        self.spec = goal_spec(
            top,
            checks=checks,
            subfolder=subfolder,
            limits=Limits(check_timeout=check_timeout),
            verification=VerificationSpec.model_validate({"path": path, **verification}),
        )
        self.folder = top.parents[1] / "goal"
        self.store = store_of(self.spec, self.folder)
        runner = CheckRunner(
            self.spec, self.folder, ProcessSandbox(Surroundings(top, path)), environment or {}, secrets, poll
        )
        self.verifier = WorktreeVerifier(self.spec, self.store, self.folder, runner, "process")
        self.base = self.store.snapshot("base")

    def left(self) -> list[str]:
        """What verifications left beside the worktrees that are used again."""
        return [path.name for path in (self.folder / "verify").iterdir() if not path.name.startswith("worktree-")]

    def verify(self, label: str = "turn-1", on_process: OnProcess = unrecorded) -> VerificationReport:
        """Verify the workspace as it is now."""
        report = self.verifier.verify(self.store.snapshot(label), label, on_process)
        assert not self.left()
        return report

    def output(self, result: CheckResult) -> str:
        """All that a check printed."""
        return (self.folder / result.output).read_text("utf-8")


def printed(top: Path, command: str) -> str:
    """What a check that passes prints."""
    desk = Desk(top, command)
    (result,) = desk.verify().checks
    assert result.outcome == "pass", desk.output(result)
    return desk.output(result)


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        ("true", "pass"),
        ("exit 3", "fail"),
        ("false | true", "fail"),
        ("false; true", "fail"),
        ("echo $undefined_variable", "fail"),
        ("kill -KILL $$", "fail"),
        ("no-such-command-at-all", "fail"),
        ("test -z \"$(cat)\"", "pass"),
        ("if", "fail"),
    ],
)  # fmt: skip
def test_a_check_passes_only_if_all_of_it_succeeds(command: str, outcome: str, top: Path) -> None:
    report = Desk(top, command).verify()
    assert [check.outcome for check in report.checks] == [outcome]
    assert report.outcome == ("weak_pass" if outcome == "pass" else "fail")
    assert report.green == (outcome == "pass")


def test_one_failing_check_fails_the_whole_and_all_are_run(top: Path) -> None:
    report = Desk(top, "true", "exit 4", "true").verify()
    assert [(check.outcome, check.exit_code) for check in report.checks] == [("pass", 0), ("fail", 4), ("pass", 0)]
    assert (report.outcome, report.green) == ("fail", False)


def test_a_check_that_does_not_end_is_ended_and_is_no_pass(top: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = f"trap 'exit 0' TERM; echo $$ >> {pids}; setsid sleep 300 & echo $! >> {pids}; while :; do :; done"
    report = Desk(top, command, check_timeout=1).verify()
    assert (report.checks[0].outcome, report.green) == ("timeout", False)
    assert len(pids_in(pids)) == 2
    assert not any(map(alive, pids_in(pids)))


def test_checks_get_an_environment_built_from_nothing(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        if not name.startswith(("LD_", "GIT_")):
            monkeypatch.setenv(name, value)
    desk = Desk(top, "env -0", environment={**os.environ, **PLANTED, "WANTED": "yes"}, pass_env=("WANTED", "ABSENT"))
    (result,) = desk.verify().checks
    found = dict(entry.split("=", 1) for entry in desk.output(result).split("\0") if entry)
    assert found.keys().isdisjoint(PLANTED.keys())
    assert (found["WANTED"], found["GOALRUN_GOAL_ID"], found["TZ"], found["LANG"]) == ("yes", GOAL, "UTC", "C.UTF-8")
    assert "ABSENT" not in found
    own = {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "TERM", "CI", "WANTED", "PWD", "SHLVL", "_", "OLDPWD"}
    prefixes = ("XDG_", "PYTHON", "GO", "NPM_CONFIG", "GIT_CONFIG", "NO_COLOR", "RUSTUP_HOME")
    assert not [name for name in found if name not in own and not name.startswith(prefixes)]


def test_home_and_temporary_folder_are_empty_outside_of_the_tree_and_gone_afterwards(top: Path, home: Path) -> None:
    command = (
        'test -z "$(ls -A "$HOME" "$TMPDIR" | grep -v :)"; [ "$(dirname "$HOME")" != "$PWD" ]; '
        'touch "$HOME/.bashrc" "$TMPDIR/x"; git status --porcelain; echo "$HOME"; echo "$TMPDIR"; pwd'
    )
    *folders, where = printed(top, command).split()
    assert len(folders) == 2
    assert not any(Path(folder).exists() for folder in folders)
    assert str(home) not in folders
    assert not any(Path(folder).is_relative_to(where) for folder in folders)


def test_standard_input_is_empty(top: Path) -> None:
    assert printed(top, "cat; echo end") == "end\n"


def test_a_check_sees_the_snapshot_as_a_clean_repository_of_one_commit(top: Path) -> None:
    write(top, {"new.txt": "new\n"})
    command = "git log --format=%s | wc -l; git status --porcelain --ignored; git remote; git ls-files; git stash list"
    assert printed(top, command).split() == ["1", *sorted([*FILES, "new.txt"])]


def test_a_check_cannot_reach_the_workspace_by_its_folder_or_its_git(top: Path) -> None:
    with untouched(top.parent):
        shown = printed(top, "echo x > app.py; git checkout -q -b other; git add .; git config a.b c; pwd -P")
    assert not Path(shown.strip()).is_relative_to(top.parent)


def test_edits_after_the_snapshot_are_not_seen(top: Path) -> None:
    desk = Desk(top, "grep 'value = 2' app.py")
    write(top, {"app.py": "value = 2\n"})
    snapshot = desk.store.snapshot("turn-1")
    write(top, {"app.py": "value = 3\n"})
    assert desk.verifier.verify(snapshot, "turn-1", unrecorded).green


def test_edits_while_a_check_runs_are_not_seen(top: Path) -> None:
    def edit(_role: str, _process: ProcessIdentity) -> None:
        write(top, {"app.py": "value = 'late'\n"})

    assert Desk(top, "grep 'value = 1' app.py").verify(on_process=edit).green


def test_ignored_files_are_not_there(top: Path) -> None:
    write(top, {".gitignore": "cached\n", "cached": "x", "__pycache__/app.pyc": "x"})
    assert Desk(top, "! ls cached __pycache__").verify().green


def test_checks_start_in_the_subfolder(top: Path) -> None:
    desk = Desk(top, "ls", subfolder="sub")
    (result,) = desk.verify().checks
    assert desk.output(result) == "inner.txt\n"


@pytest.mark.parametrize("link", [None, "/tmp", "..", "."])
def test_a_subfolder_that_is_gone_or_leads_out_of_the_tree_fails(link: str | None, top: Path) -> None:
    desk = Desk(top, "true", subfolder="sub")
    shutil.rmtree(top / "sub")
    if link is not None:
        (top / "sub").symlink_to(link)
    report = desk.verify()
    assert (report.green, report.checks[0].outcome) == (link == ".", "pass" if link == "." else "fail")


def test_protected_paths_are_as_in_the_base_and_the_turn_is_tampered(top: Path) -> None:
    desk = Desk(top, f"cat tests/test_app.py; ! ls pytest.ini; {PYTEST}")
    write(top, {"tests/test_app.py": "def test_one(): pass\n", "pytest.ini": "[pytest]\naddopts = --co\n"})
    report = desk.verify()
    assert desk.output(report.checks[0]).startswith(PASSING)
    assert report.checks[0].outcome == "pass"
    assert (report.outcome, report.green) == ("tampered", False)
    assert {tamper.path for tamper in report.tampering} == {"tests/test_app.py", "pytest.ini"}


def test_a_goal_without_checks_is_still_looked_at_for_tampering(top: Path) -> None:
    desk = Desk(top, "true")
    desk.spec = desk.spec.but(judges=({"name": "j", "command": ("j",)},), checks=())
    runner = CheckRunner(
        desk.spec, desk.folder, ProcessSandbox(Surroundings(top, os.environ["PATH"])), {}, (), lambda: None
    )
    verifier = WorktreeVerifier(desk.spec, desk.store, desk.folder, runner, "process")
    assert verifier.verify(desk.store.snapshot("turn-1"), "turn-1", unrecorded).outcome == "weak_pass"
    write(top, {"tests/test_app.py": "pass\n"})
    assert verifier.verify(desk.store.snapshot("turn-2"), "turn-2", unrecorded).outcome == "tampered"


def test_the_bases_tests_pass_alone_and_together_with_added_ones(top: Path) -> None:
    desk = Desk(top, "ls tests >> $OUT; ! grep -r BAD tests", environment={"OUT": str(top.parents[1] / "runs")},
                pass_env=("OUT",))  # fmt: skip
    write(top, {"tests/test_new.py": PASSING})
    report = desk.verify()
    assert report.green
    assert (top.parents[1] / "runs").read_text("utf-8").split() == ["test_app.py", "test_app.py", "test_new.py"]
    write(top, {"tests/test_new.py": "BAD\n"})
    assert desk.verify("turn-2").outcome == "fail"


def test_an_added_test_cannot_make_a_failing_base_test_pass(top: Path) -> None:
    write(top, {"tests/test_app.py": "import app\ndef test_one(): assert app.value == 2\n"})
    desk = Desk(top, PYTEST)
    write(top, {"tests/test_aaa.py": "import app\napp.value = 2\ndef test_new(): assert True\n"})
    report = desk.verify()
    assert (report.outcome, report.green) == ("fail", False)
    assert report.tampering == ()


def test_counts_and_failing_ids_come_from_the_report_of_pytest(top: Path) -> None:
    body = "import pytest\ndef test_good(): pass\ndef test_bad(): assert 0\n@pytest.mark.skip\ndef test_not(): pass\n"
    write(top, {"tests/test_more.py": body})
    desk = Desk(top, PYTEST)
    (result,) = desk.verify().checks
    assert result.outcome == "fail"
    assert result.tests is not None
    assert (result.tests.passed, result.tests.failed, result.tests.skipped) == (3, 1, 1)
    assert result.failing == ("tests.test_more::test_bad",)
    assert "test_bad" in result.excerpt
    assert "1 test failed" in result.reason


def test_checks_of_pytest_leave_nothing_in_the_tree(top: Path) -> None:
    desk = Desk(top, PYTEST, "git status --porcelain; test -z \"$(git status --porcelain)\"")  # fmt: skip
    write(top, {".gitignore": ".pytest_cache/\n"})
    assert desk.verify().green


AT_EXIT = "import atexit, os, pytest\natexit.register(os._exit, 0)\n"


@pytest.mark.parametrize(
    ("app", "why"),
    [
        ("import os\nos._exit(0)\n", "left no report"),
        (f"{AT_EXIT}value = 2\n", "1 test failed"),
        (f"{AT_EXIT}pytest.skip(allow_module_level=True)\n", "no test passed"),
    ],
    ids=["ends the test program", "ends it after the report", "skips all"],
)
def test_code_that_ends_the_test_program_with_success_does_not_pass(app: str, why: str, top: Path) -> None:
    write(top, {"tests/test_app.py": "import app\ndef test_one(): assert app.value == 1\n"})
    desk = Desk(top, PYTEST)
    write(top, {"app.py": app})
    (result,) = desk.verify().checks
    assert (result.outcome, result.exit_code) == ("fail", 0)
    assert why in result.reason


def test_secrets_are_neither_in_the_excerpt_nor_in_the_file(top: Path) -> None:
    desk = Desk(top, "echo planted-secret; exit 1", secrets=("planted-secret",))
    (result,) = desk.verify().checks
    assert "planted" not in desk.output(result) + result.excerpt
    assert "[redacted]" in result.excerpt


def test_excerpts_are_bounded_and_speak_of_the_workspace(top: Path) -> None:
    desk = Desk(top, "echo first; pwd; seq 100000; echo last; exit 1")
    (result,) = desk.verify().checks
    assert len(result.excerpt) < 7_000
    assert result.excerpt.startswith(f"first\n{top}\n")
    assert result.excerpt.rstrip().endswith("last")


def test_everything_that_a_check_starts_is_gone_before_the_next(top: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    first = f"setsid sleep 300 & echo $! > {pids}"
    report = Desk(top, first, f"! kill -0 $(cat {pids})").verify()
    assert report.green


def test_a_check_that_takes_permissions_away_is_cleaned_up_after(top: Path) -> None:
    assert Desk(top, "mkdir -p a/b; touch a/b/c; ln -s / a/b/root; chmod 0 a/b a .").verify().green
    assert Path("/etc/passwd").exists()


def test_an_interrupted_verification_leaves_no_worktree(top: Path) -> None:
    def poll() -> None:
        raise Interrupted("stop", "asked to")

    desk = Desk(top, "sleep 300", poll=poll)
    with pytest.raises(Interrupted):
        desk.verify()
    assert not desk.left()


def test_every_check_is_recorded_before_it_runs(top: Path) -> None:
    roles: list[str] = []
    Desk(top, "true", "true").verify(on_process=lambda role, _: roles.append(role))
    assert roles == ["check", "check"]


def test_checks_in_the_live_workspace_say_so(top: Path) -> None:
    desk = Desk(top, "pwd", worktree=False)
    report = desk.verify()
    assert (report.sandbox, report.outcome) == ("live", "weak_pass")
    assert desk.output(report.checks[0]).strip() == str(top)
    assert on_disk(top).keys() == {os.fsencode(name) for name in FILES}


@pytest.mark.parametrize("name", ["home", "tmp", "reports", "tree", "with space", "-dash", "ü"])
def test_a_workspace_may_have_any_name(name: str, user: Path) -> None:
    top = repository(user / name, FILES)
    desk = Desk(top, "ls; basename \"$PWD\"", PYTEST)  # fmt: skip
    report = desk.verify()
    assert report.green
    assert desk.output(report.checks[0]).split("\n") == ["app.py", "sub", "tests", name, ""]


def test_path_entries_inside_of_the_workspace_are_left_out(top: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(top)
    (top / "bin").symlink_to("/usr/bin")
    entries = ["/usr/bin", f"{top}/.venv/bin", "", ".", "relative/bin", f"{tmp_path}/alias/x", f"{top}/bin", "/bin"]
    kept, dropped = path_for_checks(os.pathsep.join([*entries, "/usr/bin"]), top)
    assert kept.split(os.pathsep) == ["/usr/bin", "/bin"]
    assert dropped == (f"{top}/.venv/bin", f"{tmp_path}/alias/x", f"{top}/bin")


def test_a_program_of_the_workspace_is_not_run_in_place_of_a_tool(top: Path) -> None:
    name = Path(sys.executable).name
    write(top, {"bash": "#!/bin/sh\nexit 0\n", "git": "#!/bin/sh\nexit 0\n", name: "#!/bin/sh\nexit 0\n"})
    for tool in ("bash", "git", name):
        (top / tool).chmod(0o755)
    assert not Desk(top, f"{shlex.quote(name)} -c 'raise SystemExit(1)'").verify().green


def test_independent_checks_run_side_by_side_each_in_a_worktree_of_its_own(top: Path, tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would run out of time.
    waiting = "touch made-here {0}; until test -e {1}; do sleep 0.01; done; ls made-*; test {2} = 0"
    first, second = tmp_path / "first", tmp_path / "second"
    commands = [waiting.format(first, second, 0), waiting.format(second, first, 1), "! ls made-here"]
    desk = Desk(top, *commands, jobs=2)
    begun: list[str] = []
    report = desk.verify(on_process=lambda role, _: begun.append(role))
    assert [(check.command, check.outcome) for check in report.checks] == [
        (commands[0], "pass"), (commands[1], "fail"), (commands[2], "pass"),
    ]  # fmt: skip
    assert desk.output(report.checks[0]) == "made-here\n"
    assert begun == ["check"] * 3


def test_checks_in_one_worktree_build_on_each_other(top: Path) -> None:
    assert Desk(top, "touch built", "test -e built").verify().green


def test_a_pause_ends_all_checks_that_run_side_by_side(top: Path, tmp_path: Path) -> None:
    marks = [tmp_path / "one", tmp_path / "two"]

    def poll() -> None:
        if all(mark.exists() for mark in marks):
            raise Interrupted("pause", "asked to")

    desk = Desk(top, *(f"touch {mark}; sleep 60" for mark in marks), jobs=2, poll=poll)
    with pytest.raises(Interrupted):
        desk.verify()
    assert not desk.left()

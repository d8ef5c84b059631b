"""What other repositories take from this one: the pre-commit hook and the action. Both are run as their runners would.

The hook is run by pre-commit itself, which installs this source into an environment of its own: that needs the package
index.
The action's step is run by bash with what a runner gives it; the runner itself is not here.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import PYTHON, Done, git, repository, slow, told, write

ROOT = Path(__file__).resolve().parents[2]
HOOKS = ROOT / ".pre-commit-hooks.yaml"
ACTION = ROOT / ".github" / "actions" / "verify" / "action.yml"
RUNNER_SHELL = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")
"""What ``shell: bash`` stands for: docs.github.com, workflow syntax, ``jobs.<job_id>.steps[*].shell``."""
STOP = re.compile(r"^::stop-commands::([0-9a-f]{32})$", re.MULTILINE)
TESTS = """import unittest
import shop

class ShopTest(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(shop.double(0), 0)

    def test_one(self):
        self.assertEqual(shop.double(1), 2)
"""
GOOD, BAD = "def double(x): return x + x\n", "def double(x): return x\n"
CHECK = "python3 -m unittest discover -s tests"
INSTALL_SECONDS = 300

in_a_checkout = pytest.mark.skipif(
    git(ROOT, "rev-parse", "--show-toplevel", check=False).strip() != str(ROOT),
    reason="this source is no git checkout, and pre-commit takes hooks from repositories only",
)


def without_git_variables() -> dict[str, str]:
    """The environment, without what a git that runs these tests leaves in it, and without settings of users."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GOALRUN_"))}
    return kept | {"GIT_CONFIG_GLOBAL": "/dev/null", "NO_COLOR": "1"}


def finished(command: list[str], folder: Path, environment: dict[str, str]) -> Done:
    return told(command, folder, environment, INSTALL_SECONDS)


# The hook


@pytest.mark.skipif(not HOOKS.exists(), reason="the hook's manifest is only in a checkout, not in the sdist")
def test_the_manifest_of_the_hook_is_valid() -> None:
    done = finished(
        [sys.executable, "-m", "pre_commit", "validate-manifest", str(HOOKS)], ROOT, without_git_variables()
    )
    assert done.code == 0, done.out


@in_a_checkout
@pytest.mark.timeout(INSTALL_SECONDS)
@pytest.mark.parametrize(
    ("notes", "code"), [pytest.param("a note\n", 0, marks=slow), ("", 1)], ids=["passing", "failing"]
)
def test_pre_commit_runs_the_hook(tmp_path: Path, notes: str, code: int) -> None:
    checks = 'checks = ["test -e notes.txt", "test -s notes.txt"]\n'
    folder = repository(tmp_path / "project", {"goalrun.toml": checks, "notes.txt": ""})
    write(folder, {"notes.txt": notes})
    environment = without_git_variables() | {
        "GOALRUN_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    command = [sys.executable, "-m", "pre_commit", "try-repo", str(ROOT), "goalrun-verify", "--all-files", "--verbose"]
    done = finished(command, folder, environment)
    assert done.code == code, done.out
    assert ("Passed" if code == 0 else "exit code: 12") in done.out, done.out
    for outcome, check in (("pass", "e"), ("fail" if code else "pass", "s")):
        assert re.search(rf"^ *{outcome} +test -{check} notes.txt \(weak", done.out, re.MULTILINE), done.out


# The action


@dataclass
class Runner:
    """A machine's workspace and temporary folder, as an action's step gets them."""

    workspace: Path
    temporary: Path

    def verify(self, **inputs: str) -> Done:
        """Run the step called Verify with these inputs, and the action's defaults for the others."""
        action: dict[str, Any] = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
        given = {name: inputs.pop(name.replace("-", "_"), each["default"]) for name, each in action["inputs"].items()}
        assert not inputs, "no such input"
        (step,) = (step for step in action["runs"]["steps"] if step["name"] == "Verify")
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input would become part of the script"
        variables = {
            name: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda match: given[match[1]], value)
            for name, value in step["env"].items()
        }
        assert not any("inputs." in value for value in variables.values()), "an expression that this does not know"
        script = self.temporary / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        environment = without_git_variables() | {
            "GOALRUN_HOME": str(self.temporary / "state"),
            "XDG_CONFIG_HOME": str(self.temporary / "config"),
            "RUNNER_TEMP": str(self.temporary),
            **variables,
        }
        return finished([*RUNNER_SHELL, str(script)], self.workspace, environment)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A checkout whose base fails a test, and this goalrun where the action's first step installs it."""
    if not ACTION.exists():
        pytest.skip("the action is only in a checkout, not in the sdist")
    goalrun = tmp_path / "runner" / "goalrun" / "bin" / "goalrun"
    goalrun.parent.mkdir(parents=True)
    goalrun.write_text(f'#!/bin/sh\nexec {PYTHON} -P -m goalrun "$@"\n', encoding="utf-8")
    goalrun.chmod(0o755)
    workspace = repository(tmp_path / "workspace", {"shop.py": BAD, "tests/test_shop.py": TESTS})
    git(workspace, "switch", "--quiet", "--create=work")
    return Runner(workspace, tmp_path / "runner")


def outside(done: Done) -> str:
    """What the runner would read for commands: all but what stands between the stop and its token."""
    stop = STOP.search(done.out)
    assert stop, done.out
    before, _, after = done.out.partition(stop[0])
    _, end, rest = after.partition(f"\n::{stop[1]}::\n")
    assert end, done.out
    return before + rest


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"shop.py": GOOD}, 0, "strong, 2 passed"),
        ({"shop.py": BAD + "# a remark\n"}, 12, "1 test failed"),
        ({"tests/test_shop.py": TESTS.replace(", 2)", ", 1)")}, 13, "tests/test_shop.py (modified)"),
    ],
    ids=["passing", "failing", "tampered"],
)
def test_the_action_says_what_verify_says(runner: Runner, changes: dict[str, str], code: int, told: str) -> None:
    write(runner.workspace, changes)
    git(runner.workspace, "commit", "--quiet", "--all", "--message=change")
    done = runner.verify(checks=f"\n{CHECK}\n\n", base="main")
    assert (done.code, told in done.out) == (code, True), done.out
    assert outside(done) == ""


def test_all_lines_of_checks_are_run_and_strong_ones_can_be_required(runner: Runner) -> None:
    write(runner.workspace, {"shop.py": GOOD})
    both = f"{CHECK}\ntest -e shop.py"
    assert runner.verify(checks=both, base="main").code == 0
    done = runner.verify(checks=both, base="main", require_strong="true")
    assert (done.code, "weak passes do not count" in done.out) == (12, True), done.out


def test_without_checks_those_of_the_configuration_are_run(runner: Runner) -> None:
    write(runner.workspace, {"goalrun.toml": 'checks = ["test -e nowhere"]\n'})
    git(runner.workspace, "add", "--all")
    git(runner.workspace, "commit", "--quiet", "--message=configuration")
    done = runner.verify(base="HEAD")
    assert (done.code, "test -e nowhere (weak" in done.out) == (12, True), done.out


@pytest.mark.parametrize("name", ["main", "HEAD^", "its commit"])
def test_a_shallow_checkout_gets_its_base(runner: Runner, name: str) -> None:
    base = git(runner.workspace, "rev-parse", "main").strip() if name == "its commit" else name
    write(runner.workspace, {"shop.py": GOOD})
    git(runner.workspace, "commit", "--quiet", "--all", "--message=change")
    shallow = runner.temporary / "shallow"
    source = f"file://{runner.workspace}"
    git(runner.temporary, "clone", "--quiet", "--depth=1", "--branch=work", source, str(shallow))
    done = Runner(shallow, runner.temporary).verify(checks=CHECK, base=base)
    assert (done.code, "strong, 2 passed" in done.out) == (0, True), done.out
    assert outside(done) == ""


HOSTILE = [
    'echo "it\'s" > /dev/null; touch quoted',
    "$(touch expanded)",
    "`touch expanded`",
    "--json",
    "\\",
    "*",
    "${{ secrets.TOKEN }}",
]


def test_a_check_is_one_word_whatever_it_holds(runner: Runner) -> None:
    before = set(runner.workspace.rglob("*"))
    done = runner.verify(checks="\n".join(HOSTILE), base="main")
    assert done.code == 12, done.out
    told = [line.split(" (weak")[0].split(maxsplit=1)[1] for line in done.out.splitlines() if " (weak" in line]
    assert told == HOSTILE, done.out
    # What the checks themselves do, they do in a folder of their own.
    assert set(runner.workspace.rglob("*")) == before
    assert outside(done) == ""


@pytest.mark.parametrize(
    "base",
    [
        "$(touch expanded)",
        "main; touch expanded",
        "--upload-pack=touch expanded",
        "-x",
        "",
        "main\n::error::forged",
        "*",
    ],
)
def test_a_base_is_a_revision_or_refused(runner: Runner, base: str) -> None:
    git(runner.workspace, "remote", "add", "origin", str(runner.workspace))
    before = {path for path in runner.workspace.rglob("*") if ".git" not in path.parts}
    done = runner.verify(checks="true", base=base)
    assert done.code == 2, done.out
    assert {path for path in runner.workspace.rglob("*") if ".git" not in path.parts} == before
    assert outside(done) == ""


def test_what_a_check_prints_is_no_command_to_the_runner(runner: Runner) -> None:
    lines = "::set-env name=PATH::/evil", "::error::forged", "::add-mask::a", "::stop-commands::mine", "::mine::"
    printed = "".join(f"echo '{line}'; echo '{line}' >&2; " for line in lines)
    done = runner.verify(checks=f"{printed} exit 1", base="main")
    assert done.code == 12
    assert all(done.out.splitlines().count(line) == 2 for line in lines), done.out  # both streams
    assert outside(done) == ""


def test_each_run_has_a_token_of_its_own(runner: Runner) -> None:
    tokens = [STOP.findall(runner.verify(base="").out) for _ in range(2)]
    assert [len(found) for found in tokens] == [1, 1]
    assert tokens[0] != tokens[1]

"""The promises of the loop, through the command line, with real processes."""

import hashlib
import os
import shlex
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from support import (
    CHEAT_WORKER,
    CHECK,
    GOOD_WORKER,
    PYTHON,
    Program,
    finish,
    git,
    running,
    script,
    shop,
    wait_until,
    write,
)


def everything_below(folder: Path, leave_out: str = "") -> dict[str, str]:
    """Every file, link and folder below a folder, with its mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if leave_out and (name == leave_out or name.startswith(leave_out + "/")):
            continue
        content = str(path.readlink()) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = f"{path.lstat().st_mode:o} {content}"
    return found


def test_a_worker_that_weakens_the_test_never_achieves_and_one_that_fixes_the_code_does(
    program: Program, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    worker = (
        f"cat > {shlex.quote(str(prompts))}/$GOALRUN_TURN; "
        f"if [ $GOALRUN_TURN = 1 ]; then {CHEAT_WORKER}; echo all tests pass; "
        f"else sed -i s/200/180/ tests/test_shop.py; {GOOD_WORKER}; fi"
    )
    done = program.start("--json", worker=worker)
    first, second = done.json["turn_records"]
    assert (done.code, done.json["state"], done.json["turns"]) == (0, "achieved", 2)
    assert first["verification"]["outcome"] == "tampered"
    assert first["verification"]["tampering"] == [{"path": "tests/test_shop.py", "kind": "modified"}]
    assert second["verification"]["tampering"] == []
    assert second["decision"] == "achieved"
    told = (prompts / "2").read_text()
    assert "tests/test_shop.py (modified)" in told
    assert "tests/test_shop.py (modified)" not in (prompts / "1").read_text()
    assert "AssertionError: 200 != 180" in told
    assert "make tests pass" in told
    assert CHECK in told
    assert "turn 2 of 20" in told
    assert f"(strong, {done.json['sandbox']})" in program.run("list").out, "what says achieved says on what it rests"


def test_cheating_to_the_end_is_never_achieved(program: Program) -> None:
    done = program.start("--max-turns", "2", "--json", worker=CHEAT_WORKER)
    assert (done.code, done.json["state"]) == (3, "max_turns")


def test_a_cheat_that_also_does_the_work_is_not_delivered(program: Program) -> None:
    """The checks pass without the edit, but what would be delivered is not what was verified."""
    done = program.start("--max-turns", "1", "--json", worker=f"{GOOD_WORKER}; {CHEAT_WORKER}")
    assert (done.code, done.json["state"]) == (3, "max_turns")
    assert done.json["turn_records"][0]["verification"]["checks"][0]["outcome"] == "pass"
    assert done.json["turn_records"][0]["verification"]["outcome"] == "tampered"


def test_protected_edits_restore_puts_the_base_back_and_then_achieves(program: Program, project: Path) -> None:
    before = (project / "tests/test_shop.py").read_bytes()
    done = program.start("--protected-edits", "restore", "--json", worker=f"{GOOD_WORKER}; {CHEAT_WORKER}")
    assert (done.code, done.json["turns"]) == (0, 1)
    assert (project / "tests/test_shop.py").read_bytes() == before
    edits = done.json["turn_records"][0]["snapshot"]["protected_edits"]
    assert edits == [{"path": "tests/test_shop.py", "kind": "modified"}]


def test_the_users_repository_is_not_written_and_nothing_of_ours_is_in_the_workspace(
    program: Program, project: Path
) -> None:
    git(project, "branch", "other")
    write(project, {"staged.txt": "s", "stashed.txt": "x"})
    git(project, "add", "stashed.txt")
    git(project, "stash")
    git(project, "add", "--all")
    write(project, {"untracked.txt": "u", ".git/hooks/post-checkout": "#!/bin/sh\ntouch ../hooked\n"})
    (project / ".git/hooks/post-checkout").chmod(0o755)
    repository = everything_below(project / ".git")
    files = everything_below(project, leave_out=".git")
    done = program.start("--json", worker=GOOD_WORKER)
    assert done.code == 0, done.err
    assert everything_below(project / ".git") == repository
    after = everything_below(project, leave_out=".git")
    assert {name for name in files.keys() | after.keys() if files.get(name) != after.get(name)} == {"shop.py"}


def test_success_on_the_last_allowed_turn_is_success(program: Program) -> None:
    worker = f"if [ $GOALRUN_TURN = 2 ]; then {GOOD_WORKER}; else date +%N > note.txt; fi"
    done = program.start("--max-turns", "2", "--json", worker=worker)
    assert (done.code, done.json["state"], done.json["turns"]) == (0, "achieved", 2)


def test_a_base_that_passes_is_achieved_before_anybody_is_paid(program: Program, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    done = program.start("--json", worker=f"touch {marker}", check="true")
    assert (done.code, done.json["turns"], done.json["state"]) == (0, 0, "achieved")
    assert "passes" in done.json["detail"]
    assert not marker.exists()
    forced = program.start("--json", "--force", worker=f"touch {marker}", check="true")
    assert (forced.code, forced.json["turns"]) == (0, 1)
    assert marker.exists()


@pytest.mark.parametrize("isolation", ["auto", "off"])
def test_what_a_worker_left_running_is_gone_when_checks_run(program: Program, tmp_path: Path, isolation: str) -> None:
    """The orphan leaves its session, forks twice and drops its environment; it would fix the code later."""
    alive = tmp_path / "alive"
    orphan = f"setsid env -i bash -c '(while :; do date +%N > {alive}; sleep 0.05; done) &' > /dev/null 2>&1 &"
    worker = f"{orphan} while [ ! -e {alive} ]; do sleep 0.02; done"
    arguments = ("--worker-isolation", isolation, "--max-turns", "1", "--json")
    assert program.start(*arguments, worker=worker, check="false").code == 3
    assert running(str(alive)) == []


def test_two_goals_in_one_workspace_run_one_after_the_other_under_all_its_names(
    program: Program, project: Path, tmp_path: Path
) -> None:
    """Each worker notes when it begins and ends; the second is asked for while the first one works."""
    link = tmp_path / "link"
    link.symlink_to(project)
    (project / "sub").mkdir()
    history, gate = tmp_path / "history", tmp_path / "gate"
    slow = f"echo begin 1 >> {history}; while [ ! -e {gate} ]; do sleep 0.02; done; echo end 1 >> {history}"
    first = program.spawn("start", "x", "--worker-cmd", slow, "-c", "false", "--max-turns", "1")
    wait_until(history.exists, "the first worker began")
    names = [link, project / "sub"]

    def queued(count: int) -> bool:
        return len(list((program.home / "locks").glob("0*.json"))) == count

    others = []
    for number, place in enumerate(names, start=2):
        quick = f"echo begin {number} >> {history}; echo end {number} >> {history}"
        others.append(program.spawn("start", "x", "--worker-cmd", quick, "-c", "false", "--max-turns", "1", cwd=place))
        wait_until(partial(queued, number), "it has queued")
    refused = program.run("start", "x", "--worker-cmd", "true", "-c", "false", "--no-wait", cwd=link)
    assert refused.code == 8
    assert "workspace busy" in refused.err
    assert str(project) in refused.err
    gate.touch()
    for process in (first, *others):
        assert finish(process).code == 3
    events = history.read_text().split("\n")[:-1]
    assert events == ["begin 1", "end 1", "begin 2", "end 2", "begin 3", "end 3"]
    assert len(program.goals()) == 3


def test_a_parent_folder_of_a_live_workspace_is_busy_too(program: Program, tmp_path: Path) -> None:
    parent = tmp_path / "plain"
    write(parent, {"inner/file.txt": "x"})
    gate = tmp_path / "gate"
    begun = tmp_path / "begun"
    slow = f"touch {begun}; while [ ! -e {gate} ]; do sleep 0.02; done"
    first = program.spawn("start", "x", "--worker-cmd", slow, "-c", "false", "--max-turns", "1", cwd=parent / "inner")
    wait_until(begun.exists, "the first worker began")
    refused = program.run("start", "x", "--worker-cmd", "true", "-c", "false", "--no-wait", cwd=parent)
    gate.touch()
    finish(first)
    assert refused.code == 8


@pytest.mark.parametrize("isolation", ["auto", "off"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_pauses_and_the_worker_is_told_first(
    program: Program, tmp_path: Path, number: int, isolation: str
) -> None:
    told, begun = tmp_path / "told", tmp_path / "begun"
    worker = script(
        tmp_path / "worker.py",
        "import pathlib, signal, sys, time\n"
        f"def stop(*_):\n    pathlib.Path({str(told)!r}).touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path('half.txt').write_text('half done')\n"
        f"pathlib.Path({str(begun)!r}).touch()\n"
        "while True: time.sleep(0.05)\n",
    )
    arguments = ("--worker-cmd", worker, "-c", "test -e done.txt", "--json", "--worker-isolation", isolation)
    process = program.spawn("start", "x", *arguments)
    wait_until(begun.exists, "the worker began")
    process.send_signal(number)
    done = finish(process)
    assert (done.code, done.json["state"]) == (130, "paused")
    assert told.exists()
    assert running(str(tmp_path / "worker.py")) == []
    prompt = tmp_path / "prompt"
    script(
        tmp_path / "worker.py",
        f"import sys, pathlib\npathlib.Path({str(prompt)!r}).write_text(sys.stdin.read())\n"
        "assert pathlib.Path('half.txt').exists()\npathlib.Path('done.txt').touch()\n",
    )
    resumed = program.run("resume", done.json["id"], "--json")
    assert (resumed.code, resumed.json["state"], resumed.json["turns"]) == (0, "achieved", 1)
    assert "cut before" in prompt.read_text()


@pytest.mark.parametrize("isolation", ["auto", "off"])
def test_stop_from_another_shell_ends_the_worker_and_everything_that_it_started(
    program: Program, tmp_path: Path, isolation: str
) -> None:
    begun = tmp_path / "begun"
    # It ignores being told, and has a child in a session of its own.
    worker = f"trap '' TERM; setsid tail -f /dev/null {begun} & touch {begun}; while :; do sleep 0.05; done"
    arguments = ("--worker-cmd", worker, "-c", "false", "--json", "--worker-isolation", isolation)
    process = program.spawn("start", "x", *arguments)
    wait_until(lambda: running(f"tail -f /dev/null {begun}", exactly=True), "its child began")
    asked = program.run("stop", "--json")
    alive = running(f"tail -f /dev/null {begun}", exactly=True)
    done = finish(process)
    assert (asked.code, asked.json["state"]) == (0, "stopped")
    assert alive == []
    assert (done.code, done.json["state"]) == (7, "stopped")


@pytest.mark.parametrize("isolation", ["auto", "off"])
def test_killing_goalrun_leaves_no_worker_frees_the_lock_and_loses_no_turn(
    program: Program, tmp_path: Path, isolation: str
) -> None:
    begun, runs = tmp_path / "begun", tmp_path / "runs"
    child = f"tail -f /dev/null {begun}"
    worker = (
        f"echo $GOALRUN_TURN >> {runs}; "
        f"if [ $GOALRUN_TURN = 2 ] && [ ! -e {begun} ]; then echo half > half.txt; touch {begun}; "
        f"setsid {child} > /dev/null 2>&1 & while :; do sleep 0.05; done; "
        f"elif [ $GOALRUN_TURN = 2 ]; then touch done.txt; else date +%N > note.txt; fi"
    )
    arguments = ("--worker-cmd", worker, "-c", "test -e done.txt", "--worker-isolation", isolation)
    process = program.spawn("start", "x", *arguments)
    wait_until(lambda: running(child, exactly=True), "turn 2 works")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not running(str(begun)), "everything is gone")
    goal = program.goals()[0]
    assert (goal["state"], goal["turns"], goal["pid"]) == ("interrupted", 1, None)
    other = program.run("start", "y", "--worker-cmd", "true", "-c", "true", "--no-wait")
    assert other.code == 0, other.err
    resumed = program.run("resume", goal["id"], "--json")
    assert (resumed.code, resumed.json["state"], resumed.json["turns"]) == (0, "achieved", 2)
    assert runs.read_text().split() == ["1", "2", "2"]
    assert resumed.json["turn_records"][0] == goal["turn_records"][0]


def test_checks_see_the_snapshot_and_nothing_that_the_worker_left_outside_of_it(
    program: Program, project: Path
) -> None:
    """A file that git ignores is no part of what is delivered, so it cannot make a check pass."""
    write(project, {".gitignore": "ignored.txt\n"})
    done = program.start("--max-turns", "1", worker="touch ignored.txt", check="test -e ignored.txt")
    assert done.code == 3
    live = program.start("--max-turns", "1", "--verify-in", "live", "--json", worker="touch ignored.txt", check=(
        "test -e ignored.txt && test -e now.txt || { touch now.txt; false; }"))  # fmt: skip
    assert live.json["sandbox"] == "live"


def printed_by_check(program: Program) -> str:
    """What the first check of the newest goal's first turn printed."""
    goal = program.goals()[0]
    output: str = goal["turn_records"][0]["verification"]["checks"][0]["output"]
    return Path(program.home, "goals", goal["id"], output).read_text()


@pytest.mark.parametrize("level", ["auto", "process"])
def test_the_checks_environment_is_built_from_nothing(program: Program, level: str) -> None:
    program.environment = {"MY_API_KEY": "abcdefgh12345678", "BASH_ENV": "/nonexistent", "MAKEFLAGS": "i", "PLAIN": "p"}
    arguments = ("--max-turns", "1", "--pass-env", "PLAIN", "--sandbox", level)
    program.start(*arguments, worker="true", check="env; echo home: $(ls -A $HOME); false")
    lines = printed_by_check(program).splitlines()
    names = {line.partition("=")[0]: line.partition("=")[2] for line in lines if "=" in line}
    assert not {"MY_API_KEY", "BASH_ENV", "MAKEFLAGS", "SSH_AUTH_SOCK", "GOALRUN_HOME", "USER"} & names.keys()
    assert names["PLAIN"] == "p"
    assert names["HOME"] != os.environ["HOME"]
    assert names["TMPDIR"] != os.environ.get("TMPDIR")
    assert [line.strip() for line in lines if line.startswith("home:")] == ["home:"]


def test_a_secret_of_the_environment_is_written_nowhere(program: Program) -> None:
    secret = "tops3cret-v4lue-998877"  # noqa: S105 - made up
    program.environment = {"SOME_TOKEN": secret}
    worker = "echo the token is $SOME_TOKEN; echo $SOME_TOKEN > leaked.txt; exit 75"
    done = program.start("--max-turns", "1", worker=worker, check="cat leaked.txt; false")
    assert done.code == 6
    assert secret not in done.out + done.err
    logs = program.run("logs")
    assert secret not in logs.out
    assert "[redacted]" in logs.out
    for path in program.home.rglob("*"):
        if path.is_file() and "store.git" not in path.parts:
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("level", ["auto", "process"])
def test_worker_and_checks_start_where_goalrun_was_started(
    program: Program, project: Path, tmp_path: Path, level: str
) -> None:
    write(project, {"sub/keep.txt": ""})
    seen = tmp_path / "seen"
    worker = f"pwd > {seen}; echo $GOALRUN_WORKSPACE >> {seen}"
    arguments = ("--max-turns", "1", "--sandbox", level)
    program.start(*arguments, worker=worker, check="pwd; ls; git log --oneline; false", cwd=project / "sub")
    assert seen.read_text().splitlines() == [str(project / "sub"), str(project)]
    where, file, commit = printed_by_check(program).splitlines()
    assert where.endswith("/project/sub")
    assert file == "keep.txt"
    assert commit.endswith("snapshot")
    sandboxed = program.goals()[0]["sandbox"] == "bwrap"
    assert (where == str(project / "sub")) is sandboxed


def test_any_folder_can_be_a_workspace(program: Program, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", {"a.txt": "1"})
    done = program.start("--json", worker="echo 2 > a.txt", check="grep -q 2 a.txt", cwd=plain)
    assert (done.code, done.json["workspace"]) == (0, str(plain))
    assert sorted(path.name for path in plain.iterdir()) == ["a.txt"]


def test_a_script_that_a_check_names_is_protected_and_the_user_is_told(program: Program, project: Path) -> None:
    write(project, {"verify.sh": "exit 1\n"})
    cheat = "echo exit 0 > verify.sh"
    done = program.start("--max-turns", "1", "--json", worker=cheat, check="bash ./verify.sh")
    assert done.code == 3
    assert done.json["turn_records"][0]["verification"]["tampering"] == [{"path": "verify.sh", "kind": "modified"}]
    assert "verify.sh is protected, because a check names it" in done.err
    (project / "verify.sh").write_text("exit 1\n")
    assert program.start("--may-change", "verify.sh", worker=cheat, check="bash ./verify.sh").code == 0


def test_dirty_and_untracked_work_is_part_of_the_base(program: Program, project: Path) -> None:
    """The user's own uncommitted edit of a test is the base, not tampering."""
    (project / "tests/test_shop.py").write_text((project / "tests/test_shop.py").read_text().replace("180", "181"))
    write(project, {"tests/test_new.py": "import unittest\n"})
    fixed = "printf 'def total(prices, discount=0):\\n    return 181\\n' > shop.py"
    done = program.start("--json", worker=fixed)
    assert (done.code, done.json["turns"]) == (0, 1), done.err


def test_new_tests_in_new_files_are_welcome_but_have_to_pass(program: Program, project: Path) -> None:
    new = "import unittest\nclass N(unittest.TestCase):\n    def test_n(self):\n        self.assertTrue(VALUE)\n"
    good = script(
        project.parent / "good.py",
        f"import pathlib\npathlib.Path('tests/test_n.py').write_text({new!r}.replace('VALUE', '1'))\n",
    )
    bad = script(
        project.parent / "bad.py",
        f"import pathlib\npathlib.Path('tests/test_n.py').write_text({new!r}.replace('VALUE', '0'))\n",
    )
    failing = program.start("--max-turns", "1", "--json", worker=f"{GOOD_WORKER}; {bad}")
    assert failing.code == 3
    assert failing.json["turn_records"][0]["verification"]["outcome"] == "fail"
    git(project, "checkout", "--quiet", ".")
    (project / "tests/test_n.py").unlink()
    passing = program.start("--json", worker=f"{GOOD_WORKER}; {good}")
    assert (passing.code, passing.json["turns"]) == (0, 1)


def test_the_added_test_cannot_carry_the_old_ones(program: Program) -> None:
    """An added file in the test root that patches the product only helps the pass with it, not the one without."""
    patch = "import shop\\nshop.total = lambda prices, discount=0: 180\\n"
    done = program.start("--max-turns", "1", "--json", worker=f"printf '{patch}' > tests/test_aaa.py")
    assert done.code == 3


def test_pytest_reports_are_counted_and_failing_tests_named(program: Program) -> None:
    done = program.start("--max-turns", "1", "--json", worker="echo >> note.txt", check=f"{PYTHON} -m pytest -q")
    check = done.json["turn_records"][0]["verification"]["checks"][0]
    assert check["tests"] == {"passed": 0, "failed": 1, "skipped": 0}
    assert check["failing"] == ["tests.test_shop.TotalTest::test_discount"]
    assert "tests.test_shop.TotalTest::test_discount" in done.json["turn_records"][0]["feedback"]


def test_shop_is_a_failing_project(tmp_path: Path) -> None:
    assert git(shop(tmp_path / "s"), "status", "--porcelain") == ""


def test_what_slips_out_of_the_workers_tree_is_ended_by_its_mark_or_told(program: Program, tmp_path: Path) -> None:
    """A daemon that nobody here started (at, systemd-run, tmux) runs two things for the worker: one keeps its mark."""
    order = tmp_path / "order"
    workspace = shlex.quote(str(program.cwd))
    daemon = (
        f"while ! test -s {order}; do sleep 0.05; done; cd {workspace}; "
        f"env -i GOALRUN_GOAL_ID=$(cat {order}) sleep 4711 & env -i sleep 4712 & "
        f"while ! grep -qa sleep.4712 /proc/$!/cmdline; do :; done; touch {order}.done; wait"
    )
    outside = subprocess.Popen(["bash", "-c", daemon], start_new_session=True)
    try:
        ordered = f"echo $GOALRUN_GOAL_ID > {order}; until test -e {order}.done; do sleep 0.05; done"
        done = program.start("--worker-isolation", "off", "--json", worker=f"{ordered}; {GOOD_WORKER}")
        (record,) = done.json["turn_records"]
        assert done.json["state"] == "achieved"
        assert running("sleep 4711", exactly=True) == []
        told = [each for each in record["worker"]["untied"] if each.endswith(" sleep")]
        assert [int(each.split()[0]) for each in told] == running("sleep 4712", exactly=True)
        assert f"process {told[0]} began meanwhile and is left alone" in done.err
    finally:
        os.killpg(outside.pid, signal.SIGKILL)
        outside.wait()

"""Folders that are taken away, replaced or made unreadable: an error that names it, no verdict from other bytes."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from adapters.goals import fingerprint
from support import GOALRUN, Done, Program, finish, git, spawned, wait_until, write

CHECK = "test $(wc -l < work.txt) -ge 2"
ONE_LINE = "echo x >> work.txt"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, or become another user")

T = TypeVar("T")


def told(done: Done, words: str, code: int = 11) -> None:
    """One clear line, and no traceback."""
    text = done.out + done.err
    assert done.code == code, done
    assert words in text, done
    assert "Traceback" not in text
    assert "a bug in goalrun" not in text


def goal_of(program: Program) -> Path:
    """The folder of the only goal."""
    (folder,) = (program.home / "goals").iterdir()
    return folder


def records_of(program: Program, kind: str) -> int:
    return program.run("logs", "--json").out.count(f'"kind":"{kind}"')


# The workspace


def deleted(project: Path, aside: Path) -> None:
    project.rename(aside)


def replaced(project: Path, aside: Path) -> None:
    project.rename(aside)
    write(project, {"work.txt": "x\nx\n", "evil.txt": "of somebody else\n"})


def linked(project: Path, aside: Path) -> None:
    project.rename(aside)
    write(aside.with_name("other"), {"work.txt": "x\nx\n"})
    project.symlink_to(aside.with_name("other"))


def brought_back(project: Path, aside: Path) -> None:
    if project.is_symlink():
        project.unlink()
    elif project.exists():
        shutil.rmtree(project)
    aside.rename(project)


ALL = os.environ.get("GOALRUN_FAULTS") == "all"


def some(cases: Iterable[T]) -> list[T]:
    """The first two of some cases; all of them with GOALRUN_FAULTS=all."""
    return list(cases) if ALL else list(cases)[:2]


AWAY = (replaced, linked, deleted)


class Waiting:
    """A command that says that it runs, and waits until it may go on."""

    def __init__(self, folder: Path) -> None:
        self.here, self.go = folder / "here", folder / "go"
        self.command = f"touch {self.here}; while [ ! -e {self.go} ]; do sleep 0.02; done"

    def meanwhile(self, process: "subprocess.Popen[str]", happens: Callable[[], object]) -> Done:
        wait_until(self.here.exists, "the command runs")
        happens()
        self.go.touch()
        return finish(process)


@pytest.mark.parametrize("away", some(AWAY))
def test_a_workspace_that_goes_away_in_a_turn_is_no_result(
    away: Callable[[Path, Path], None], program: Program
) -> None:
    waiting, aside = Waiting(program.home.parent), program.cwd.with_name("aside")
    worker = f"{ONE_LINE}; {waiting.command}"
    process = program.spawn("start", "two lines", "--worker-cmd", worker, "-c", CHECK, "--worker-isolation", "off",
                            cwd=program.cwd)  # fmt: skip
    done = waiting.meanwhile(process, lambda: away(program.cwd, aside))
    told(done, "the workspace is gone" if away is deleted else "the workspace is another folder now")
    brought_back(program.cwd, aside)
    assert records_of(program, "worker_finished") == 0
    resumed = program.run("resume", "--json")
    assert (resumed.code, resumed.json["turns"]) == (0, 2)
    assert (program.cwd / "work.txt").read_text("ascii") == "x\nx\n"
    assert not (program.cwd / "evil.txt").exists()


@pytest.mark.parametrize("away", some(AWAY))
def test_a_workspace_that_goes_away_while_it_is_verified_is_not_snapshotted_or_worked_in(
    away: Callable[[Path, Path], None], program: Program
) -> None:
    waiting, aside = Waiting(program.home.parent), program.cwd.with_name("aside")
    check = f"test -e work.txt; touch {waiting.here}; while [ ! -e {waiting.go} ]; do sleep 0.02; done; {CHECK}"
    process = program.spawn("start", "two lines", "--worker-cmd", ONE_LINE, "-c", check, "--sandbox", "process",
                            cwd=program.cwd)  # fmt: skip
    done = waiting.meanwhile(process, lambda: away(program.cwd, aside))
    # The snapshot is verified all the same; the next worker is what finds no workspace.
    told(done, "the workspace is gone" if away is deleted else "the workspace is another folder now")
    brought_back(program.cwd, aside)
    assert records_of(program, "turn_finished") == 1
    assert program.run("resume").code == 0
    assert not (program.cwd / "evil.txt").exists()


@pytest.mark.parametrize("away", [linked, deleted] if ALL else [linked])
def test_a_live_workspace_that_is_another_one_is_not_verified(
    away: Callable[[Path, Path], None], program: Program
) -> None:
    aside = program.cwd.with_name("aside")
    moved = f"mv {program.cwd} {aside} && mkdir {program.cwd} && printf 'x\\nx\\n' > {program.cwd}/work.txt"
    worker = f"{ONE_LINE}; {moved}"
    done = program.run("start", "two lines", "--worker-cmd", worker, "-c", CHECK, "--verify-in", "live",
                       "--worker-isolation", "off")  # fmt: skip
    told(done, "the workspace is another folder now")
    assert away is not None


def test_a_workspace_that_is_empty_at_a_resume_may_not_be_mounted(program: Program) -> None:
    program.start("--max-turns", "1", worker=ONE_LINE, check=CHECK)
    goal, aside = goal_of(program).name, program.cwd.with_name("aside")
    program.cwd.rename(aside)
    program.cwd.mkdir()
    refused = program.run("resume", "--max-turns", "3", goal)
    told(refused, "is empty, and its last snapshot is not")
    assert program.run("restore", "--turn", "1", goal).code == 0
    assert (program.cwd / "work.txt").read_text("ascii") == "x\n"
    assert program.run("resume", "--max-turns", "3", goal).code == 0


def test_a_workspace_that_is_gone_at_a_resume_can_come_back_elsewhere_on_the_disk(program: Program) -> None:
    program.start("--max-turns", "1", worker=ONE_LINE, check=CHECK)
    goal, aside = goal_of(program).name, program.cwd.with_name("aside")
    program.cwd.rename(aside)
    told(program.run("resume", "--max-turns", "3", goal, cwd=aside.parent), "is gone", code=2)
    shutil.copytree(aside, program.cwd, symlinks=True)
    assert program.run("resume", "--max-turns", "3", goal).code == 0


@root_only
def test_a_workspace_that_is_unmounted_in_a_turn_is_no_result(program: Program) -> None:
    top = program.cwd.with_name("mounted")
    top.mkdir()
    mount = subprocess.run(["mount", "--bind", program.cwd, top], check=False, capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"nothing can be mounted here: {mount.stderr}")
    waiting = Waiting(program.home.parent)
    worker = f"{ONE_LINE}; {waiting.command}"
    process = program.spawn(
        "start", "two lines", "--worker-cmd", worker, "-c", CHECK, "--worker-isolation", "off", cwd=top
    )
    try:
        done = waiting.meanwhile(process, lambda: subprocess.run(["umount", "--lazy", top], check=True))
        told(done, "the workspace is another folder now")
        goal = goal_of(program).name
        refused = program.run("resume", goal)
        told(refused, "is empty, and its last snapshot is not")
        subprocess.run(["mount", "--bind", program.cwd, top], check=True)
        assert program.run("resume", goal, cwd=top).code == 0
    finally:
        subprocess.run(["umount", "--lazy", top], check=False, capture_output=True)


# The store


def loose(store: Path, commit: str) -> Path:
    return store / "objects" / commit[:2] / commit[2:]


def of_the_store(store: Path, what: str) -> str:
    return git(store, "rev-parse", what).strip()


def lose(what: str) -> Callable[[Path], None]:
    return lambda folder: loose(folder / "store.git", of_the_store(folder / "store.git", what)).unlink()


def rot(what: str) -> Callable[[Path], None]:
    def done(folder: Path) -> None:
        path = loose(folder / "store.git", of_the_store(folder / "store.git", what))
        path.chmod(0o600)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)

    return done


LOST: dict[str, Callable[[Path], object]] = {
    "the commit of the base": lose("refs/goalrun/base"),
    "the last tree": lose("refs/goalrun/last^{tree}"),
    "a file of the last snapshot": lose("refs/goalrun/last:work.txt"),
    "a protected file": lose("refs/goalrun/base:tests/test_shop.py"),
    "a protected file that rotted": rot("refs/goalrun/base:tests/test_shop.py"),
    "a tree that rotted": rot("refs/goalrun/last^{tree}"),
    "all of it": lambda folder: shutil.rmtree(folder / "store.git"),
}


@pytest.mark.parametrize("what", some(LOST))
def test_a_store_that_lost_something_is_an_error_that_names_it(what: str, program: Program) -> None:
    program.start("--max-turns", "1", worker=ONE_LINE, check=CHECK)
    folder = goal_of(program)
    LOST[what](folder)
    before = fingerprint(program.cwd)
    done = program.run("resume", "--max-turns", "3")
    told(done, "store.git")
    # What is there but cannot be read shows when it is needed.
    assert fingerprint(program.cwd) == before or "rotted" in what, "nothing was worked on"
    assert program.run("list").code == 0


REBUILT: dict[str, Callable[[Path], object]] = {
    "no index": lambda folder: (folder / "index").unlink(),
    "an index that is none": lambda folder: (folder / "index").write_bytes(b"garbage"),
    "an index that was cut": lambda folder: os.truncate(folder / "index", 50),
    "a lock of a dead git": lambda folder: (folder / "index.lock").touch(),
    "a ref's lock of a dead git": lambda folder: (folder / "store.git/refs/goalrun/last.lock").touch(),
    "no ref last": lambda folder: (folder / "store.git/refs/goalrun/last").unlink(),
    "no ref base": lambda folder: (folder / "store.git/refs/goalrun/base").unlink(),
}


@pytest.mark.parametrize("what", some(REBUILT))
def test_what_can_be_made_again_is(what: str, program: Program) -> None:
    program.start("--max-turns", "1", worker=ONE_LINE, check=CHECK)
    folder = goal_of(program)
    REBUILT[what](folder)
    resumed = program.run("resume", "--max-turns", "3", "--json")
    assert (resumed.code, resumed.json["turns"]) == (0, 2), resumed.err
    assert resumed.json["turn_records"][1]["changed_files"] == 1
    git(folder / "store.git", "fsck", "--full", "--strict")


# What the caller gives: permissions, HOME, TMPDIR, streams


def once(program: Program, harm: str) -> str:
    """A worker that does its work, and harm in its first turn."""
    done = program.home.with_name("harmed")
    return f"{ONE_LINE}; [ -e {done} ] || {{ touch {done}; {harm}; }}"


def bound(program: Program, *arguments: str) -> Done:
    """A run that permissions bind, which root's are not while it may override them (capabilities(7))."""
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else ["env"]
    if shutil.which(prefix[0]) is None:
        pytest.skip(f"there is no {prefix[0]}: permissions do not bind root")
    return under(prefix, program, *arguments)


START = ("start", "two lines", "-c", CHECK, "--worker-isolation", "off", "--sandbox", "process", "--worker-cmd")


def test_a_file_that_cannot_be_read_is_named_and_no_turn(program: Program) -> None:
    done = bound(program, *START, once(program, "echo s > secret; chmod 0 secret"))
    told(done, "secret")
    (program.cwd / "secret").chmod(0o600)
    assert bound(program, "resume").code == 0


def test_a_workspace_that_cannot_be_read_is_named_and_no_turn(program: Program) -> None:
    done = bound(program, *START, once(program, "chmod 0 ."))
    told(done, str(program.cwd))
    program.cwd.chmod(0o700)
    assert bound(program, "resume").code == 0
    assert (program.cwd / "work.txt").read_text("ascii").startswith("x\nx\n")


@pytest.mark.parametrize("mode", [0o500, 0])
def test_a_state_folder_that_becomes_read_only_is_named_and_the_goal_goes_on_after(mode: int, program: Program) -> None:
    home = shlex.quote(str(program.home))
    done = bound(program, *START, once(program, f"chmod {mode:o} {home}/goals/* {home}/goals {home}"))
    told(done, str(program.home))
    if mode:
        listed = bound(program, "list")
        assert (listed.code, listed.err) == (0, "")
        told(bound(program, "resume"), "not writable", code=2)
    else:
        told(bound(program, "list"), "Permission denied")
    subprocess.run(["chmod", "-R", "u+rwX", program.home], check=True)
    assert bound(program, "resume").code == 0


def test_a_state_folder_that_vanishes_is_named(program: Program) -> None:
    worker = f"{ONE_LINE}; mv {program.home} {program.home}.aside"
    done = program.start("--worker-isolation", "off", worker=worker, check=CHECK)
    told(done, str(program.home))
    if program.home.exists():
        shutil.rmtree(program.home)
    program.home.with_name("state.aside").rename(program.home)
    assert program.run("resume").code in {0, 11}


HOMES: dict[str, Callable[[Path], str | None]] = {
    "unset": lambda _: None,
    "empty": lambda _: "",
    "missing": lambda top: str(top / "nowhere"),
    "a file": lambda top: str(write(top, {"file": ""}) / "file"),
    "relative": lambda _: "some/where",
}


@pytest.mark.parametrize("home", some(HOMES))
def test_a_goal_needs_no_home(home: str, program: Program, tmp_path: Path) -> None:
    value = HOMES[home](tmp_path)
    prefix = ["env", "-u", "HOME"] if value is None else ["env", f"HOME={value}"]
    done = under(prefix, program, "start", "two lines", "--worker-cmd", ONE_LINE, "-c", CHECK)
    assert done.code == 0, done.err
    assert under(prefix, program, "list").code == 0


def under(prefix: Sequence[str], program: Program, *arguments: str) -> Done:
    """The program, run by another one, without XDG folders."""
    environment = {key: value for key, value in program.env().items() if not key.startswith("XDG_")}
    return finish(spawned([*prefix, *GOALRUN, *arguments], program.cwd, environment))


@pytest.mark.parametrize("home", ["missing", "a file", "empty"])
def test_no_place_for_the_state_is_one_line(home: str, program: Program) -> None:
    closed = program.home.with_name("closed")
    closed.mkdir(mode=0o500)
    value = {"missing": str(closed / "nowhere"), "a file": "/etc/passwd", "empty": ""}[home]
    program.environment |= {"HOME": value, "GOALRUN_HOME": ""}
    done = bound(program, *START, ONE_LINE)
    if home == "empty":
        assert done.code in {0, 2}, done
    else:
        told(done, "the state folder", code=2)


@pytest.mark.parametrize("folder", ["/dev/null/nowhere", "/proc"])
def test_no_temporary_folder_is_one_line_or_none_is_needed(folder: str, program: Program) -> None:
    program.environment["TMPDIR"] = folder
    done = program.start(worker=ONE_LINE, check=CHECK)
    assert done.code in {0, 11}, done
    assert "Traceback" not in done.out + done.err
    assert "bug" not in done.err


@root_only
def test_a_full_temporary_folder_is_one_line(program: Program, tmp_path: Path) -> None:
    small = tmp_path / "tmp"
    small.mkdir()
    options = "size=16k,nr_inodes=4"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", small], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with (small / "filler").open("wb") as filler:
            filler.write(b"x" * shutil.disk_usage(small).free)
        for number in range(10):
            try:
                (small / str(number)).touch()
            except OSError:
                break
        program.environment["TMPDIR"] = str(small)
        done = program.start(worker=ONE_LINE, check=CHECK)
        if done.code:
            told(done, "No space left", code=done.code)
        assert done.code in {0, 2, 11}
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
    program.environment.pop("TMPDIR")
    assert done.code == 0 or program.run("resume").code == 0 or program.start(worker=ONE_LINE, check=CHECK).code == 0


def test_a_current_folder_that_is_gone_is_one_line(program: Program, tmp_path: Path) -> None:
    leave = ["bash", "-c", f'mkdir {tmp_path}/here && cd {tmp_path}/here && rmdir ../here && exec "$@"', "bash"]
    told(under(leave, program, "start", "x", "--worker-cmd", "true", "-c", "true"), "the current folder is gone", 2)
    assert under(leave, program, "list").code == 0
    told(under(leave, program, "status"), "the current folder is gone", 2)


@pytest.mark.parametrize("stream", ["1", "2"])
@pytest.mark.parametrize("to", [">&-", ">/dev/full"])
def test_streams_that_take_nothing_end_no_goal(stream: str, to: str, program: Program) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    prefix = ["bash", "-c", f'exec "$@" {stream}{to}', "bash"]
    done = under(prefix, program, "start", "two lines", "--worker-cmd", ONE_LINE, "-c", CHECK)
    undelivered = stream == "1" and to == ">/dev/full"
    assert done.code == (11 if undelivered else 0), done
    if undelivered:
        told(done, "cannot write to standard output: No space left on device")
    assert program.goals()[0]["state"] == "achieved"
    listed = under(prefix, program, "list")
    assert listed.code == (11 if undelivered else 0)
    assert "Traceback" not in listed.err
    assert "Exception ignored" not in listed.err


def test_a_pipe_that_nobody_reads_ends_no_goal(program: Program) -> None:
    line = 'set +o pipefail; "$@" 2>&1 | true; exit ${PIPESTATUS[0]}'
    done = under(["bash", "-c", line, "bash"], program, "start", "two lines", "--worker-cmd", ONE_LINE, "-c", CHECK)
    assert done.code == 0
    assert program.goals()[0]["state"] == "achieved"

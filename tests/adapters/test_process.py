"""The one door for processes: what they get, what is kept of them, and that nothing of them is left."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from adapters.goals import alive, pids_in
from support import script, wait_until

from goalrun.adapters import process
from goalrun.adapters.identity import identify, is_alive, myself, reap
from goalrun.adapters.process import HEAD_BYTES, TAIL_BYTES, Command, Finished, Unstartable, run
from goalrun.core.model import ProcessIdentity
from goalrun.errors import Interrupted, ProcessFailure

PATH = {"PATH": os.environ["PATH"]}
LINUX = sys.platform == "linux"
DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(300)
"""


def shell(tmp_path: Path, body: str, **changes: Any) -> Command:  # noqa: ANN401 - any field of a command
    """A shell command whose output goes to ``tmp_path/out``."""
    plain: dict[str, Any] = {"cwd": tmp_path, "env": PATH, "stdout": tmp_path / "out", "timeout": 60.0}
    return Command(**{"argv": ("bash", "-c", body), **plain, **changes})


def unrecorded(_: ProcessIdentity) -> None:
    """Nobody records the start."""


def unasked() -> None:
    """Nobody asks for an end."""


def done(command: Command) -> Finished:
    """Run a command that nobody interrupts."""
    return run(command, unrecorded, unasked)


def output(tmp_path: Path, body: str, **changes: Any) -> bytes:  # noqa: ANN401 - any field of a command
    """What a shell command printed."""
    done(shell(tmp_path, body, **changes))
    return (tmp_path / "out").read_bytes()


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """A file to which commands write the pids of what must not be left; the last resort of a failing test."""
    path = tmp_path / "pids"
    yield path
    for pid in pids_in(path):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def daemon(tmp_path: Path) -> str:
    """A command that leaves a process behind, twice forked, in a session of its own, with no environment."""
    return f"env -i {script(tmp_path / 'daemon.py', DAEMON)}"


@pytest.mark.parametrize("code", [0, 1, 3, 75, 127, 255])
def test_the_exit_status_is_the_commands_own(code: int, tmp_path: Path) -> None:
    finished = done(shell(tmp_path, f"exit {code}"))
    assert (finished.exit_code, finished.timed_out, finished.survivors) == (code, False, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE])
def test_a_command_that_a_signal_ended_says_so(number: signal.Signals, tmp_path: Path) -> None:
    assert done(shell(tmp_path, f"kill -{number.value} $$")).exit_code == -number


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("kill -KILL $$", "bash was ended by signal 9"),
        ("exit 3", "bash ended with exit status 3"),
        ("echo why; exit 1", "bash ended with exit status 1 after: why"),
    ],
)
def test_a_launcher_that_leaves_no_record_is_a_failure_that_says_how_it_ended(
    body: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ProcessFailure) as failure:
        done(shell(tmp_path, body, status=tmp_path / "status"))
    assert str(failure.value).endswith(said)


def _missing(folder: Path) -> str:
    return str(folder / "missing")


def _not_executable(folder: Path) -> str:
    (folder / "plain").write_text("#!/bin/sh\n", "ascii")
    return str(folder / "plain")


def _no_program(folder: Path) -> str:
    (folder / "data").write_bytes(b"\0\1\2")
    (folder / "data").chmod(0o755)
    return str(folder / "data")


@pytest.mark.parametrize("make", [_missing, _not_executable, _no_program, str], ids=lambda make: make.__name__)
def test_what_is_no_program_cannot_be_started(make: Callable[[Path], str], tmp_path: Path) -> None:
    program = make(tmp_path)
    with pytest.raises(Unstartable, match=re.escape(program)):
        done(shell(tmp_path, "", argv=(program,)))


def test_a_name_that_is_on_no_path_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(Unstartable, match="no-such-program"):
        done(shell(tmp_path, "", argv=("no-such-program",)))


def test_a_folder_that_is_gone_cannot_be_started_in(tmp_path: Path) -> None:
    with pytest.raises(Unstartable, match="gone"):
        done(shell(tmp_path, "true", cwd=tmp_path / "gone"))


def test_a_command_that_ignores_being_told_to_end_is_killed_at_its_deadline(tmp_path: Path, pids: Path) -> None:
    body = f"trap '' TERM INT HUP; echo $$ >> {pids}; (trap '' TERM; sleep 300 & echo $! >> {pids}; wait); sleep 300"
    finished = done(shell(tmp_path, body, timeout=0.5))
    assert finished.timed_out
    assert finished.exit_code == -signal.SIGKILL
    assert len(pids_in(pids)) == 2
    assert not any(map(alive, pids_in(pids)))


def test_a_command_that_ends_when_told_at_its_deadline_has_still_timed_out(tmp_path: Path) -> None:
    body = "trap 'echo told; exit 0' TERM; echo ready; while :; do :; done"
    finished = done(shell(tmp_path, body, timeout=0.5))
    assert (finished.timed_out, finished.exit_code) == (True, 0)
    assert (tmp_path / "out").read_text("ascii") == "ready\ntold\n"


def test_output_is_bounded_its_head_and_tail_kept_and_the_gap_counted(tmp_path: Path) -> None:
    body = "echo FIRST; yes 0123456789 | head -c 50000000; echo LAST"
    found = output(tmp_path, body)
    gap = re.search(rb"\n\[\.\.\. (\d+) bytes left out \.\.\.\]\n", found)
    assert gap is not None
    assert len(found) <= HEAD_BYTES + TAIL_BYTES + 100
    assert len(found) - len(gap[0]) + int(gap[1]) == len("FIRST\n") + 50_000_000 + len("LAST\n")
    assert found.startswith(b"FIRST\n0123456789\n")
    assert found.endswith(b"LAST\n")
    assert gap.start() == HEAD_BYTES


def test_one_endless_line_is_bounded_too(tmp_path: Path) -> None:
    found = output(tmp_path, "head -c 30000000 /dev/zero")
    assert HEAD_BYTES + TAIL_BYTES <= len(found) <= HEAD_BYTES + TAIL_BYTES + 100


def test_output_just_below_the_bound_is_kept_whole(tmp_path: Path) -> None:
    found = output(tmp_path, f"head -c {HEAD_BYTES + TAIL_BYTES} /dev/zero")
    assert found == bytes(HEAD_BYTES + TAIL_BYTES)


def test_bytes_that_are_no_text_are_kept(tmp_path: Path) -> None:
    assert output(tmp_path, r"printf '\000\377\376\r\n\033[31m'") == b"\x00\xff\xfe\r\n\x1b[31m"


def test_both_streams_go_to_one_file_in_order_or_to_one_each(tmp_path: Path) -> None:
    body = "for n in 1 2 3; do echo out $n; echo err $n >&2; done"
    assert output(tmp_path, body) == b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
    assert output(tmp_path, body, stderr=tmp_path / "err") == b"out 1\nout 2\nout 3\n"
    assert (tmp_path / "err").read_bytes() == b"err 1\nerr 2\nerr 3\n"


def test_each_stream_is_bounded_by_itself(tmp_path: Path) -> None:
    done(shell(tmp_path, "yes out | head -c 9000000; yes err | head -c 9000000 >&2", stderr=tmp_path / "err"))
    sizes = [(tmp_path / name).stat().st_size for name in ("out", "err")]
    assert all(HEAD_BYTES + TAIL_BYTES <= size <= HEAD_BYTES + TAIL_BYTES + 100 for size in sizes)


def test_standard_input_is_the_given_file_or_empty(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"given\n")
    assert output(tmp_path, "cat", stdin=tmp_path / "in") == b"given\n"
    assert output(tmp_path, "cat; readlink /proc/self/fd/0") == b"/dev/null\n"


def test_the_environment_is_the_given_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "must not show")
    given = {**PATH, "GIVEN": "a\nb", "ÜMLAUT": "ü"}
    found = output(tmp_path, "", argv=("env", "-0"), env=given).decode("utf-8")
    assert dict(entry.split("=", 1) for entry in found.split("\0") if entry) == given


def test_the_folder_the_session_and_the_mask_are_the_commands_own(tmp_path: Path) -> None:
    (tmp_path / "in side").mkdir()
    body = 'pwd; umask; test "$(ps -o sid= -p $$ | tr -d " ")" = $$ && echo leads'
    assert output(tmp_path, body, cwd=tmp_path / "in side", umask=0o027).decode().split("\n") == [
        str(tmp_path / "in side"),
        "0027",
        "leads",
        "",
    ]


def test_no_file_of_the_caller_is_open_in_a_command(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - os has it so
        assert b"secret" not in output(tmp_path, "ls -l /proc/$$/fd /dev/fd/ 2>/dev/null")


@pytest.mark.skipif(not LINUX, reason="only Linux adopts orphans")
def test_a_daemon_that_a_command_left_is_dead_when_it_returns(tmp_path: Path, pids: Path, daemon: str) -> None:
    body = f"setsid {daemon} {pids}; until [ -s {pids} ]; do sleep 0.02; done; exit 3"
    finished = done(shell(tmp_path, body))
    assert (finished.exit_code, finished.survivors) == (3, 1)
    assert not any(map(alive, pids_in(pids)))


def test_a_child_that_holds_the_output_open_does_not_keep_a_command_running(tmp_path: Path, pids: Path) -> None:
    found = output(tmp_path, f"sleep 300 & echo $! > {pids}; echo said")
    assert found == b"said\n"
    assert not any(map(alive, pids_in(pids)))


@pytest.mark.skipif(not LINUX, reason="only Linux adopts orphans")
def test_hundreds_of_orphans_are_all_gone(tmp_path: Path, pids: Path) -> None:
    body = f"for n in $(seq 300); do (setsid sleep 300 & echo $! >> {pids}); done"
    finished = done(shell(tmp_path, body))
    assert len(pids_in(pids)) == finished.survivors == 300
    assert not any(map(alive, pids_in(pids)))


def test_processes_that_keep_forking_are_all_ended(tmp_path: Path) -> None:
    name = f"respawn-{os.getpid()}"
    body = f"respawn() {{ (exec -a {name} sleep 0.02); respawn & }}; respawn & respawn & exec -a {name} sleep 0.2"
    done(shell(tmp_path, body))
    assert not [child for child in psutil.process_iter(["cmdline"]) if name in " ".join(child.info["cmdline"] or ())]


# Secrets

SECRET = "SEKRET7QXZ-9"  # noqa: S105 - of nobody
LONG_SECRET = "LONG" + "QXZW" * 12


@pytest.mark.parametrize("secret", [SECRET, LONG_SECRET], ids=["short", "long"])
@pytest.mark.parametrize("size", [300_000, HEAD_BYTES + 100_000, 20_000_000])
def test_no_part_of_a_secret_is_written_wherever_output_is_cut(secret: str, size: int, tmp_path: Path) -> None:
    # One after the other, so that each edge of a piece of output lies inside of one.
    body = f"yes {secret} | tr -d '\\n' | head -c {size // len(secret) * len(secret)}"
    found = output(tmp_path, body, secrets=(secret,))
    assert found.count(b"[redacted]") > 1000
    assert not re.search(rb"[A-Z0-9]{2}", re.sub(rb"\[\.\.\. \d+ bytes left out \.\.\.\]", b"", found))


def test_secrets_are_replaced_in_both_streams_and_other_text_stays(tmp_path: Path) -> None:
    body = f"echo a {SECRET} b; echo c {SECRET}{SECRET} >&2; echo ü {SECRET[:-1]}"
    done(shell(tmp_path, body, secrets=(SECRET, "ünlike-any"), stderr=tmp_path / "err"))
    assert (tmp_path / "out").read_text("utf-8") == f"a [redacted] b\nü {SECRET[:-1]}\n"
    assert (tmp_path / "err").read_text("utf-8") == "c [redacted][redacted]\n"


def test_a_secret_that_is_printed_in_two_pieces_is_replaced(tmp_path: Path) -> None:
    body = f"printf {SECRET[:5]}; until [ -s out ] || [ $((n += 1)) = 20 ]; do sleep 0.01; done; printf {SECRET[5:]}"
    assert output(tmp_path, body, secrets=(SECRET,)) == b"[redacted]"


def test_output_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    output(tmp_path, "echo said", umask=0)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


# The caller


@pytest.mark.parametrize("asked", [Interrupted("stop", "asked to"), KeyboardInterrupt()])
def test_what_poll_raises_ends_everything_and_is_raised_again(
    asked: BaseException, tmp_path: Path, pids: Path, daemon: str
) -> None:
    def poll() -> None:
        if len(pids_in(pids)) == 3:
            raise asked

    body = f"trap '' TERM; setsid {daemon} {pids}; sleep 300 & echo $! >> {pids}; echo $$ >> {pids}; wait; sleep 300"
    with pytest.raises(type(asked)) as raised:
        run(shell(tmp_path, body), unrecorded, poll)
    assert raised.value is asked
    assert not any(map(alive, pids_in(pids)))


def test_an_interrupted_command_may_end_by_itself(tmp_path: Path) -> None:
    def poll() -> None:
        if (tmp_path / "out").exists() and b"ready" in (tmp_path / "out").read_bytes():
            raise Interrupted("pause", "asked to")

    body = "trap 'echo saved; exit 0' TERM; echo ready; while :; do :; done"
    with pytest.raises(Interrupted):
        run(shell(tmp_path, body), unrecorded, poll)
    assert (tmp_path / "out").read_text("ascii") == "ready\nsaved\n"


def test_a_program_does_not_run_before_its_start_is_recorded(tmp_path: Path) -> None:
    seen: list[ProcessIdentity] = []

    def record(identity: ProcessIdentity) -> None:
        seen.append(identity)
        assert psutil.Process(identity.pid).cmdline()[0] == sys.executable
        assert is_alive(identity)
        assert not (tmp_path / "marker").exists()

    run(shell(tmp_path, "echo $$ > marker"), record, unasked)
    assert [int((tmp_path / "marker").read_text("ascii"))] == [identity.pid for identity in seen]
    assert not is_alive(seen[0])


def test_a_program_whose_start_cannot_be_recorded_never_runs(tmp_path: Path) -> None:
    seen: list[int] = []

    def fail(identity: ProcessIdentity) -> None:
        seen.append(identity.pid)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(shell(tmp_path, "touch marker"), fail, unasked)
    assert not alive(seen[0])
    assert not (tmp_path / "marker").exists()


RUNNER = """
import os, sys
from pathlib import Path
from goalrun.adapters.process import Command, run
folder = Path(sys.argv[1])
argv, output = ("bash", "-c", sys.argv[2]), folder / "out"
command = Command(argv=argv, cwd=folder, env=dict(os.environ), stdout=output, timeout=300)
run(command, lambda identity: (folder / "supervised").write_text("yes"), lambda: None)
"""


@pytest.mark.skipif(not LINUX, reason="only Linux adopts orphans")
@pytest.mark.parametrize("signals", [(signal.SIGKILL,), (signal.SIGSTOP, signal.SIGKILL)], ids=["kill", "stop, kill"])
def test_nothing_outlives_a_runner_that_is_killed(
    signals: tuple[signal.Signals, ...], tmp_path: Path, pids: Path, daemon: str
) -> None:
    body = f"trap '' TERM HUP; setsid {daemon} {pids}; echo $$ >> {pids}; sleep 300 & echo $! >> {pids}; wait"
    (tmp_path / "runner.py").write_text(RUNNER, "utf-8")
    with subprocess.Popen([sys.executable, tmp_path / "runner.py", tmp_path, body]) as runner:
        wait_until(lambda: len(pids_in(pids)) == 3, "the command and its children run")
        assert all(map(alive, pids_in(pids)))
        for number in signals:
            runner.send_signal(number)
    wait_until(lambda: not any(map(alive, pids_in(pids))), "everything is gone")


def _supervisor_of(pid: int) -> psutil.Process:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    assert parent.pid != os.getpid()
    return parent


@pytest.mark.skipif(not LINUX, reason="only Linux adopts orphans")
def test_a_killed_supervisor_is_a_failure_and_leaves_nothing(tmp_path: Path, pids: Path, daemon: str) -> None:
    started: list[int] = []

    def poll() -> None:
        if len(pids_in(pids)) == 2:
            supervisor = _supervisor_of(started[0])
            supervisor.kill()

    body = f"setsid {daemon} {pids}; echo $$ >> {pids}; sleep 300"
    with pytest.raises(ProcessFailure, match="supervisor"):
        run(shell(tmp_path, body), lambda identity: started.append(identity.pid), poll)
    assert len(pids_in(pids)) == 2
    assert not any(map(alive, pids_in(pids)))


@pytest.mark.skipif(not LINUX, reason="only Linux adopts orphans")
def test_a_command_that_kills_its_supervisor_does_not_pass_and_leaves_nothing(tmp_path: Path, pids: Path) -> None:
    body = f"setsid sleep 300 & echo $! > {pids}; kill -KILL $PPID; exit 0"
    with pytest.raises(ProcessFailure, match="supervisor"):
        done(shell(tmp_path, body))
    assert not any(map(alive, pids_in(pids)))


def test_a_command_that_stops_its_supervisor_gets_no_more_time_by_it(tmp_path: Path, pids: Path) -> None:
    body = f"trap '' TERM; echo $$ > {pids}; kill -STOP $PPID; sleep 300"
    assert done(shell(tmp_path, body, timeout=0.5)).timed_out
    assert not any(map(alive, pids_in(pids)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_command_that_gets_at_the_nursery_keeps_nothing_else_from_running(
    tmp_path: Path, pids: Path, number: signal.Signals
) -> None:
    done(shell(tmp_path, "true"))
    (nursery,) = (each for each in psutil.Process().children() if "nursery" in each.cmdline()[-1])
    assert done(shell(tmp_path, f"kill -{number} {nursery.pid}; echo $$ > {pids}; exit 7")).exit_code == 7
    assert done(shell(tmp_path, "exit 8")).exit_code == 8
    assert not any(map(alive, pids_in(pids)))


def test_a_command_that_stops_its_supervisor_can_still_be_interrupted(tmp_path: Path, pids: Path) -> None:
    def poll() -> None:
        if pids.exists():
            raise Interrupted("stop", "asked to")

    with pytest.raises(Interrupted):
        run(shell(tmp_path, f"trap '' TERM; echo $$ > {pids}; kill -STOP $PPID; sleep 300"), unrecorded, poll)
    assert not any(map(alive, pids_in(pids)))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_a_failure_and_no_result(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailure, match="cannot write the output of bash"):
        done(shell(tmp_path, "echo said", stdout=Path("/dev/full")))


@pytest.mark.parametrize("place", ["missing/out", "link"])
def test_an_output_file_that_cannot_be_made_is_a_failure(place: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(ProcessFailure):
        done(shell(tmp_path, "touch marker", stdout=tmp_path / place))
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")
def test_a_detached_process_leads_a_session_and_writes_to_its_log(tmp_path: Path) -> None:
    body = 'echo $GIVEN; test -z "$HOME" && echo bare'
    detached = process.spawn_detached(["bash", "-c", body], {"GIVEN": "given"}, tmp_path / "log")
    wait_until(lambda: detached.ended() is not None, "it has ended")
    assert detached.ended() == 0
    assert (tmp_path / "log").read_text("ascii") == "given\nbare\n"


# Identities


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts processes that a dead run may have left; they are ended after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(goal: str = "", body: str = "sleep 300") -> "subprocess.Popen[bytes]":
        environment = {**PATH, **({"GOALRUN_GOAL_ID": goal} if goal else {})}
        command = ["bash", "-c", f"echo ready; {body}"]
        child = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_what_carries_the_goals_id_or_is_in_a_recorded_session_is_reaped_and_nothing_else(
    left: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    marked, recorded, stranger, other = left("g-mine"), left(), left(), left("g-other")
    assert reap([identify(recorded.pid)], "g-mine") >= 2
    assert not alive(marked.pid)
    assert not alive(recorded.pid)
    assert alive(stranger.pid)
    assert alive(other.pid)


@pytest.mark.parametrize("field", ["start", "boot"])
def test_a_process_that_got_the_pid_later_is_spared(field: str, left: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    stranger = left()
    recorded = ProcessIdentity(**{**dict(identify(stranger.pid)), field: "another"})
    assert not is_alive(recorded)
    assert reap([recorded], "g-mine") == 0
    assert alive(stranger.pid)


def test_reaping_spares_the_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOALRUN_GOAL_ID", "g-mine")
    assert reap([myself()], "g-mine") == 0


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["bash", "-c", "read"], stdin=subprocess.PIPE) as child:
        identity = identify(child.pid)
        assert is_alive(identity)
        child.kill()
        wait_until(lambda: not alive(child.pid), "it is a zombie")
        assert not is_alive(identity)


def test_a_process_of_another_machine_counts_as_alive() -> None:
    assert is_alive(myself().but(host="elsewhere"))

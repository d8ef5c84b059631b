"""What a goal's folder tells of a turn under way; whatever lies there, it is no failure."""

import os
from pathlib import Path

from support import Program
from values import checked

from goalrun.adapters.glimpse import Glimpse, glimpse, head_of, last_lines, leave_result


def written(path: Path, content: bytes, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(10**18 - age * 10**9, 10**18 - age * 10**9))
    return path


def test_a_folder_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert glimpse(tmp_path / "turn-1", 5) == Glimpse()
    assert head_of(tmp_path / "prompt.md", 5) == []


def test_the_last_lines_are_those_of_whoever_wrote_last(tmp_path: Path) -> None:
    written(tmp_path / "worker-1" / "stdout", b"old\n", age=9)
    written(tmp_path / "worker-2" / "stdout", b"one\ntwo\nthree\n", age=5)
    written(tmp_path / "worker-2" / "prompt.md", b"never\n")
    written(tmp_path / "worker-2" / "status", b"never\n")
    assert last_lines(tmp_path, 2) == ["two", "three"]
    written(tmp_path / "flow-2" / "edit-1" / "stderr", b"of a step\n", age=1)
    written(tmp_path / "flow-2" / "edit-2" / "stdout", b"")
    assert last_lines(tmp_path, 2) == ["of a step"]
    assert last_lines(tmp_path, 0) == []


def test_long_and_odd_output_is_bounded_and_harmless(tmp_path: Path) -> None:
    path = written(tmp_path / "worker-1" / "stdout", b"z" * 3_000_000)
    (line,) = last_lines(tmp_path, 5)
    assert len(line) == 400
    # The line that the cut goes through is nobody's.
    written(path, b"x" * 50_000 + b"\n\x1b[2Jlast \xff\xfe\n\n")
    assert last_lines(tmp_path, 5) == ["last \ufffd\ufffd"]
    events = b'{"type":"assistant","message":{"content":[{"text":"so"}]}}\n{"type":"system","text":"no"}\n{"cut'
    written(path, events)
    assert last_lines(tmp_path, 5) == ["so", '{"cut']


def test_checks_are_told_up_to_the_first_that_is_not_over(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        leave_result(written(tmp_path / f"check-{number}.out", b""), checked(passed=number))
    written(tmp_path / "check-3.out", b"busy", age=-5)
    found = glimpse(tmp_path, 5)
    assert [check.tests.passed for check in found.checks if check.tests is not None] == [1, 2]
    assert found.busy == "check-3"
    written(tmp_path / "check-2.json", b'{"half": ')
    assert len(glimpse(tmp_path, 5).checks) == 1
    written(tmp_path / "check-1.json", b"[" * 2_000_000)
    assert glimpse(tmp_path, 5).checks == ()


def test_a_result_that_cannot_be_left_is_no_failure(tmp_path: Path) -> None:
    leave_result(tmp_path / "nowhere" / "check-1.out", checked())
    assert not (tmp_path / "nowhere").exists()


def test_a_run_leaves_its_results_and_a_new_run_of_a_check_takes_them_away(program: Program, tmp_path: Path) -> None:
    """The second check sees the first one's result, and none of its own."""
    goals = program.home / "goals"
    look = f"ls {goals}/g-*/turns/turn-1 2> {tmp_path}/none | tr '\\n' ' ' >> {tmp_path}/seen"
    done = program.run(
        "start", "x", "--worker-cmd", "touch done", "-c", "test -e done", "-c", look, "--sandbox", "process", "--json"
    )
    assert done.code == 0, done.err
    turn = goals / done.json["id"] / "turns" / "turn-1"
    assert sorted(path.name for path in turn.glob("check-*.json")) == ["check-1.json", "check-2.json"]
    assert [check.outcome for check in glimpse(turn, 5).checks] == ["pass", "pass"]
    assert "check-1.json check-1.out check-2.out" in (tmp_path / "seen").read_text()

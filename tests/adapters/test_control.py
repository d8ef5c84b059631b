"""Requests from other shells: each reaches the runner, once, in order, and nobody else."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import time_ns

import pytest

from goalrun.adapters.control import MAX_HINT_BYTES, FileControl, Verb
from goalrun.errors import Interrupted

ASKER = """
import sys
from pathlib import Path
from goalrun.adapters.control import FileControl
control = FileControl(Path(sys.argv[1]))
for text in sys.argv[2:]:
    control.hint(text)
control.ask("stop")
"""


@pytest.fixture
def control(tmp_path: Path) -> FileControl:
    """A runner's side."""
    return FileControl(tmp_path)


def interrupted(control: FileControl) -> tuple[str, str] | None:
    """What the runner is asked to do, and why."""
    try:
        control.check()
    except Interrupted as asked:
        return asked.verb, str(asked)
    return None


def test_a_request_of_another_process_reaches_the_runner(control: FileControl, tmp_path: Path) -> None:
    assert interrupted(control) is None
    subprocess.run([sys.executable, "-c", ASKER, tmp_path, "first", "second"], check=True)
    assert interrupted(control) == ("stop", "goalrun stop")
    assert control.hints() == ("first", "second")


@pytest.mark.parametrize("verb", ["pause", "stop"])
def test_a_request_stays_until_it_is_cleared(verb: Verb, control: FileControl) -> None:
    control.ask(verb)
    assert control.asked(verb)
    assert interrupted(control) == interrupted(control) == (verb, f"goalrun {verb}")
    control.clear()
    assert interrupted(control) is None
    assert not control.asked(verb)


def test_stop_wins_over_pause(control: FileControl) -> None:
    control.ask("pause")
    control.ask("stop")
    assert interrupted(control) == ("stop", "goalrun stop")


def test_a_step_is_answered_once_and_interrupts_nothing(control: FileControl) -> None:
    control.ask("step")
    assert interrupted(control) is None
    assert control.pause_after_turn()
    assert not control.pause_after_turn()


def test_hints_stay_until_they_are_forgotten_and_later_ones_are_kept(control: FileControl) -> None:
    for text in ("one", "zwei\nü", "three"):
        control.hint(text)
    control.clear()
    assert control.hints() == ("one", "zwei\nü", "three")
    control.forget_hints(2)
    control.hint("four")
    assert control.hints() == ("three", "four")


def test_hints_keep_their_order_when_the_clock_is_set_back(control: FileControl, tmp_path: Path) -> None:
    ahead = f"hint-{time_ns() + 86_400 * 10**9:020d}-0000"
    (tmp_path / "control" / ahead).write_text("from tomorrow", "utf-8")
    control.hint("later")
    assert control.hints() == ("from tomorrow", "later")


def test_hints_are_bounded_and_text(control: FileControl, tmp_path: Path) -> None:
    control.hint("x" * (MAX_HINT_BYTES * 2))
    (tmp_path / "control" / "hint-99999999999999999999-x").write_bytes(b"\xff!")
    assert [len(hint) for hint in control.hints()] == [MAX_HINT_BYTES, 2]


def test_the_folder_of_requests_is_for_its_owner_alone(control: FileControl, tmp_path: Path) -> None:
    control.hint("secret")
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "control", *(tmp_path / "control").iterdir())} == {0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_pauses_a_second_one_ends_and_handlers_are_put_back(
    number: signal.Signals, control: FileControl
) -> None:
    before = signal.getsignal(number)
    with control.signals():
        os.kill(os.getpid(), number)
        assert interrupted(control) == ("pause", f"interrupted by {number.name}")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before

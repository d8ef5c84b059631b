"""What a resume does with the processes that a dead run's journal names."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.place import Place
from crash.trials import OPEN, START

from goalrun.adapters.clock import SystemClock
from goalrun.adapters.identity import identify, is_alive
from goalrun.adapters.journal import SqliteJournal, replay
from goalrun.adapters.views import JOURNAL
from goalrun.core.events import ProcessStarted
from goalrun.core.model import ProcessIdentity


@pytest.fixture
def stranger() -> Iterator[ProcessIdentity]:
    """A living process that is none of the goal's, in a session of its own."""
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    yield identify(child.pid)
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("changed", "lives"),
    [({"start": "1"}, True), ({"boot": "of last week"}, True), ({"host": "elsewhere"}, True), ({}, False)],
    ids=["other start time", "other boot", "other machine", "the very one"],
)
def test_a_resume_ends_what_the_journal_names_and_nobody_who_has_its_pid_now(
    changed: dict[str, str], lives: bool, stranger: ProcessIdentity, tmp_path: Path  # noqa: FBT001
) -> None:  # fmt: skip
    place = Place(tmp_path / "place")
    place.top.mkdir()
    place.make()
    assert place.run(*START, *OPEN, plan={"at": ["journal process_started durable", 2]}).died
    (folder,) = place.goals()
    named = stranger.but(**changed)
    journal = SqliteJournal(folder / JOURNAL, SystemClock(lambda: None))
    journal.append(ProcessStarted(role="worker", process=named), replay(folder / JOURNAL))
    journal.close()
    assert place.run("resume").code == 0
    assert is_alive(stranger) is lives

"""The journal: what was acknowledged is there, what was changed shows, whoever is killed."""

import hashlib
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest
from adapters.goals import goal_spec

from goalrun.adapters.clock import SystemClock
from goalrun.adapters.identity import myself
from goalrun.adapters.journal import SqliteJournal, records, replay
from goalrun.adapters.views import open_to_read, read_result
from goalrun.core.events import (
    BaseTaken,
    CallFinished,
    CallStarted,
    Event,
    GoalCreated,
    GoalStopped,
    ProcessStarted,
    RunStarted,
    TurnFinished,
    TurnStarted,
    VerificationFinished,
    WorkerEnded,
    WorkerFinished,
)
from goalrun.core.model import (
    CallRecord,
    GoalState,
    OpenTurn,
    Snapshot,
    State,
    TurnOutcome,
    TurnRecord,
    VerificationReport,
    WorkerReport,
)
from goalrun.errors import EnvironmentFailure, JournalCorrupt, UserError

WRITER = """
import sys
from pathlib import Path
from goalrun.adapters.clock import SystemClock
from goalrun.adapters.identity import myself
from goalrun.adapters.journal import SqliteJournal, replay
from goalrun.core.events import RunStarted
path = Path(sys.argv[1])
journal, state = SqliteJournal(path, SystemClock(lambda: None)), replay(path)
while True:
    record, state = journal.append(RunStarted(runner=myself()), state)
    print(record.seq, flush=True)
"""
TURNS = """
import sys
from pathlib import Path
from goalrun.adapters.clock import SystemClock
from goalrun.adapters.journal import SqliteJournal, replay
from goalrun.core.events import TurnFinished, TurnStarted
from goalrun.core.model import *
path = Path(sys.argv[1])
journal, state = SqliteJournal(path, SystemClock(lambda: None)), replay(path)
for turn in range(1, 31):
    _, state = journal.append(TurnStarted(turn=turn, attempt=1), state)
    outcome = TurnOutcome(turn=turn, worker=WorkerReport(outcome="ok"), snapshot=Snapshot(commit="c", tree="t"),
                          verification=VerificationReport(outcome="fail", sandbox="process"))
    _, state = journal.append(TurnFinished(record=TurnRecord(outcome=outcome, decision="continue", reason="r")), state)
"""


def events(workspace: Path) -> list[Event]:
    """A short life of a goal, with text of every kind in it."""
    snapshot = Snapshot(commit="c" * 40, tree="t" * 40)
    outcome = TurnOutcome(
        turn=1,
        worker=WorkerReport(outcome="ok", text="ü\u2028\x00\x1b'\"\n"),
        snapshot=snapshot,
        verification=VerificationReport(outcome="fail", sandbox="process"),
    )
    return [
        GoalCreated(spec=goal_spec(workspace)),
        RunStarted(runner=myself()),
        BaseTaken(snapshot=snapshot),
        TurnStarted(turn=1, attempt=1, hints=("a hint",)),
        TurnFinished(record=TurnRecord(outcome=outcome, decision="continue", reason="1 check failed")),
        GoalStopped(state=State.STOPPED, detail="goalrun stop"),
    ]


def opened(path: Path) -> SqliteJournal:
    """The journal with the real clock."""
    return SqliteJournal(path, SystemClock(lambda: None))


def written(path: Path) -> GoalState:
    """Write the short life; the state that it led to."""
    state: GoalState | None = None
    with closing(opened(path)) as journal:
        for event in events(path.parent):
            _, state = journal.append(event, state)
    assert state is not None
    return state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal goes."""
    return tmp_path / "journal.db"


def test_what_was_appended_is_replayed_in_order_and_to_the_same_state(path: Path) -> None:
    state = written(path)
    found = list(records(path))
    assert [record.event for record in found] == events(path.parent)
    assert [record.seq for record in found] == [1, 2, 3, 4, 5, 6]
    assert replay(path) == state
    assert [record.seq for record in records(path, after=4)] == [5, 6]


def test_a_journal_goes_on_where_it_ended_when_it_is_opened_again(path: Path) -> None:
    state = written(path)
    with closing(opened(path)) as journal:
        record, state = journal.append(RunStarted(runner=myself()), state)
    assert record.seq == 7
    assert replay(path) == state
    assert state.status is State.RUNNING


def test_an_event_that_cannot_follow_is_not_written(path: Path) -> None:
    state = written(path)
    with closing(opened(path)) as journal, pytest.raises(ValueError, match="created once"):
        journal.append(GoalCreated(spec=goal_spec(path.parent)), state)
    assert replay(path) == state


def test_rows_can_neither_be_changed_nor_deleted(path: Path) -> None:
    written(path)
    with closing(sqlite3.connect(path)) as db:
        for statement in ("UPDATE record SET body = '{}'", "DELETE FROM record"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                db.execute(statement)


SWAP = "UPDATE record SET seq = -seq WHERE seq IN (2, 3); UPDATE record SET seq = 5 + seq WHERE seq < 0"


@pytest.mark.parametrize(
    ("tampering", "place"),
    [
        ("UPDATE record SET body = replace(body, 'a hint', 'a lie') WHERE seq = 4", 4),
        ("UPDATE record SET at = '2000-01-01T00:00:00.000+00:00' WHERE seq = 3", 3),
        ("UPDATE record SET elapsed = elapsed + 1 WHERE seq = 5", 5),
        ("UPDATE record SET digest = '' WHERE seq = 2", 2),
        ("DELETE FROM record WHERE seq = 3", 3),
        ("DELETE FROM record WHERE seq = 3; UPDATE record SET seq = seq - 1 WHERE seq > 3", 3),
        (SWAP, 2),
        ("UPDATE record SET digest = (SELECT digest FROM record WHERE seq = 1) WHERE seq = 2", 2),
    ],
)
def test_a_changed_missing_or_moved_row_is_found_and_its_place_is_named(tampering: str, place: int, path: Path) -> None:
    written(path)
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TRIGGER append_only_update; DROP TRIGGER append_only_delete;")
        db.executescript(tampering)
    with pytest.raises(JournalCorrupt, match=f"damaged at record {place}$"):
        replay(path)


def test_a_row_that_was_changed_with_its_digest_does_not_fit_the_next(path: Path) -> None:
    written(path)
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TRIGGER append_only_update")
        rows = db.execute("SELECT seq, at, elapsed, body, digest FROM record ORDER BY seq").fetchall()
        seq, at, elapsed, body, _ = rows[3]
        forged = body.replace("a hint", "a lie")
        text = "\n".join((rows[2][4], str(seq), at, repr(elapsed), forged))
        digest = hashlib.sha256(text.encode()).hexdigest()
        db.execute("UPDATE record SET body = ?, digest = ? WHERE seq = 4", (forged, digest))
        db.commit()
    with pytest.raises(JournalCorrupt, match=r"damaged at record 5$"):
        replay(path)


def test_a_row_that_is_no_event_is_a_damaged_journal(path: Path) -> None:
    written(path)
    with closing(sqlite3.connect(path)) as db:
        db.executescript('DROP TRIGGER append_only_update; UPDATE record SET body = \'{"kind": "?"}\' WHERE seq = 2')
    with pytest.raises(JournalCorrupt):
        replay(path)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "overwritten"])
def test_a_file_that_is_damaged_is_told_and_left_as_it_is(damage: str, path: Path) -> None:
    written(path)
    content = path.read_bytes()
    middle = len(content) // 2
    broken = {
        "cut": content[:middle],
        "garbage": b"garbage" * 1000,
        "empty": b"",
        "overwritten": content[: 1 << 12] + b"\xa5" * (len(content) - (1 << 12)),
    }[damage]
    path.write_bytes(broken)
    for read in (replay, lambda file: read_result(file.parent), opened):
        if not (read is opened and damage == "overwritten"):
            with pytest.raises(JournalCorrupt):
                read(path)
    assert path.read_bytes() == broken


def test_a_missing_journal_is_told_and_not_made(path: Path) -> None:
    with pytest.raises(JournalCorrupt):
        replay(path)
    assert not path.exists()


def _pragma(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)


@pytest.mark.parametrize("read", [replay, opened, lambda path: read_result(path.parent)])
def test_a_journal_of_a_newer_goalrun_is_refused(read: Callable[[Path], object], path: Path) -> None:
    written(path)
    _pragma(path, "PRAGMA user_version = 2")
    with pytest.raises(UserError, match="newer goalrun"):
        read(path)


@pytest.mark.parametrize("read", [replay, opened, lambda path: read_result(path.parent)])
def test_another_programs_database_is_refused(read: Callable[[Path], object], path: Path) -> None:
    written(path)
    _pragma(path, "PRAGMA application_id = 7")
    with pytest.raises(JournalCorrupt, match="not a goalrun journal"):
        read(path)


def test_readers_cannot_write(path: Path) -> None:
    written(path)
    with closing(open_to_read(path)) as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("INSERT INTO head VALUES (2, '', '')")


def test_a_journal_is_for_its_owner_alone(path: Path) -> None:
    written(path)
    assert path.stat().st_mode & 0o777 == 0o600


def _spawned(path: Path, program: str) -> "subprocess.Popen[str]":
    with closing(opened(path)) as journal:
        journal.append(GoalCreated(spec=goal_spec(path.parent)), None)
    return subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True)


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def test_readers_see_a_consistent_goal_while_it_is_written(path: Path) -> None:
    writer = _spawned(path, TURNS)
    seen = set()
    while writer.poll() is None:
        result = read_result(path.parent)
        assert result["turns"] == len(result["turn_records"])
        assert [turn["turn"] for turn in result["turn_records"]] == list(range(1, result["turns"] + 1))
        seen.add(result["turns"])
    writer.communicate()
    assert read_result(path.parent)["turns"] == 30
    assert len(seen) > 2


def test_a_reader_in_the_middle_does_not_hold_the_writer_up(path: Path) -> None:
    state = written(path)
    reading = records(path)
    next(reading)
    with closing(opened(path)) as journal:
        journal.append(RunStarted(runner=myself()), state)
    assert len([*reading]) == 5
    assert len([*records(path)]) == 7


def test_no_acknowledged_record_is_lost_by_a_killed_writer(path: Path) -> None:
    chance = random.Random(20260101)  # noqa: S311 - when to kill
    acknowledged = 1
    for number in range(10):
        if number:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
        else:
            writer = _spawned(path, WRITER)
        for _ in range(chance.randrange(1, 60)):
            acknowledged = int(_stream(writer.stdout).readline())
        writer.kill()
        rest = writer.communicate()[0].split("\n")
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1])])
        count = len([*records(path)])
        assert acknowledged <= count <= acknowledged + 1
        replay(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_fails_the_append_and_loses_nothing(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    state = written(path)
    with closing(opened(path)) as journal:
        with (small_disk / "filler").open("wb") as filler:
            filler.write(b"x" * (shutil.disk_usage(small_disk).free))
        acknowledged, failure = 6, ""
        while not failure:
            try:
                _, state = journal.append(RunStarted(runner=myself()), state)
                acknowledged += 1
            except EnvironmentFailure as full:
                failure = str(full)
        assert failure.startswith("cannot write the journal")
        assert len([*records(path)]) == acknowledged
        (small_disk / "filler").unlink()
        record, state = journal.append(GoalStopped(state=State.ERROR, detail="disk full"), state)
    assert record.seq == acknowledged + 1
    assert replay(path) == state


def test_a_journal_that_lost_its_last_records_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path, SystemClock(lambda: None))
    state = journal.append(GoalCreated(spec=goal_spec(tmp_path)), None)[1]
    for _ in range(2):
        state = journal.append(RunStarted(runner=myself()), state)[1]
    journal.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TRIGGER append_only_delete")
        db.execute("DELETE FROM record WHERE seq = 3")
        db.commit()
    with pytest.raises(JournalCorrupt, match="lost its last records"):
        replay(path)


def _after_a_kill_without_its_wal(path: Path, place: Path) -> list[str]:
    """The kinds of what a copy of the main file alone holds."""
    place.mkdir()
    shutil.copy(path, place / path.name)
    return [record.event.kind for record in records(place / path.name)]


def test_events_that_are_appended_together_are_all_there_or_none(path: Path) -> None:
    state = written(path)
    with closing(opened(path)) as journal:
        with pytest.raises(ValueError, match="cannot follow"):
            journal.append_all((TurnStarted(turn=2, attempt=1), TurnStarted(turn=9, attempt=1)), state)
        assert len([*records(path)]) == 6
        done = journal.append_all((TurnStarted(turn=2, attempt=1), *CALLS[0]), state)
    assert [record.seq for record, _ in done] == [7, 8, 9]
    assert replay(path) == done[-1][1]


CALLS = [
    (
        CallStarted(turn=2, path="a", key="k", number=number),
        CallFinished(turn=2, path="a", key="k", number=number, call=CallRecord(status="done", kept="{}" * 500)),
    )
    for number in range(1, 201)
]


def test_a_lost_wal_takes_a_few_records_of_what_can_be_done_again_with_it_and_nothing_else(
    path: Path, tmp_path: Path
) -> None:
    state = written(path)
    with closing(opened(path)) as journal:
        _, state = journal.append(TurnStarted(turn=2, attempt=1), state)
        assert _after_a_kill_without_its_wal(path, tmp_path / "at first")[-1] == "turn_started"
        for pair in CALLS:
            state = journal.append_all(pair, state)[-1][1]
        assert len([*records(path)]) == 7 + 400
        left = _after_a_kill_without_its_wal(path, tmp_path / "in the middle")
        assert 400 - 64 < len(left) - 7 <= 400
        journal.append(GoalStopped(state=State.STOPPED, detail="asked"), state)
        assert len(_after_a_kill_without_its_wal(path, tmp_path / "then")) == 7 + 401


def test_without_its_wal_an_open_turn_has_lost_nothing_that_cost_anything(path: Path, tmp_path: Path) -> None:
    state, report = written(path), WorkerReport(outcome="ok", text="paid for")
    snapshot = Snapshot(commit="d" * 40, tree="t" * 40)
    checks = VerificationReport(outcome="fail", sandbox="process")
    steps: list[tuple[Event, int]] = [
        (TurnStarted(turn=2, attempt=1), 7),
        (ProcessStarted(role="worker", process=myself()), 7),
        (WorkerEnded(turn=2, report=report), 9),
        (WorkerFinished(turn=2, report=report, snapshot=snapshot), 9),
        (ProcessStarted(role="check", process=myself()), 9),
        (VerificationFinished(turn=2, report=checks), 9),
    ]
    with closing(opened(path)) as journal:
        for number, (event, left) in enumerate(steps):
            _, state = journal.append(event, state)
            assert len([*records(path)]) == 7 + number
            assert len(_after_a_kill_without_its_wal(path, tmp_path / str(number))) == left
        opened_turn = replay(tmp_path / "5" / path.name).open
        assert opened_turn == OpenTurn(turn=2, attempt=1, launched=True, worker=report)

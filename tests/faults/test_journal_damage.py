"""A journal that is damaged in any way: found or harmless, named, never written to; and a way on from what is good.

A share of the random damages runs by default, all of them with GOALRUN_FAULTS=all.
"""

import json
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from adapters.goals import fingerprint, goal_spec
from support import Program

from goalrun.adapters.clock import SystemClock
from goalrun.adapters.identity import myself
from goalrun.adapters.journal import SqliteJournal, records, replay, salvage
from goalrun.adapters.views import read_result
from goalrun.core.events import (
    BaseTaken,
    Event,
    GoalCreated,
    GoalStopped,
    Record,
    RunStarted,
    TurnFinished,
    TurnStarted,
)
from goalrun.core.model import GoalState, Snapshot, State, TurnOutcome, TurnRecord, VerificationReport, WorkerReport
from goalrun.errors import EnvironmentFailure, JournalCorrupt, UserError

ALL = os.environ.get("GOALRUN_FAULTS") == "all"
REST = pytest.mark.skipif(not ALL, reason="only with GOALRUN_FAULTS=all")
DAMAGES = 5000 if ALL else 100
CLOCK = SystemClock(lambda: None)
UNLOCK = "DROP TRIGGER append_only_update; DROP TRIGGER append_only_delete;"
SQL = (
    "DELETE FROM record WHERE seq > 3",
    "DELETE FROM record",
    "DELETE FROM record WHERE seq = 1",
    "UPDATE record SET seq = -seq WHERE seq IN (2, 3); UPDATE record SET seq = 5 + seq WHERE seq < 0",
    "DELETE FROM head",
    "DELETE FROM turn",
    "DELETE FROM turn WHERE turn = 2",
    "UPDATE turn SET turn = -turn; UPDATE turn SET turn = 5 + turn",
    "UPDATE head SET body = replace(body, '\"turns\": 4', '\"turns\": 3')",
    "UPDATE turn SET body = replace(body, 'continue', 'achieved')",
    "DROP TABLE record",
    "DROP TABLE head",
)
HEAD = "DELETE FROM record WHERE seq > 2; UPDATE head SET body = replace(body, '2', '3')"
LAST = "UPDATE record SET body = replace(body, 'turn_finished', 'turn_fini5hed')"
Damage = Callable[[Path, random.Random], object]


def life(workspace: Path) -> Iterator[Event]:
    """Four turns of a goal."""
    snapshot = Snapshot(commit="c" * 40, tree="t" * 40)
    yield GoalCreated(spec=goal_spec(workspace))
    yield RunStarted(runner=myself())
    yield BaseTaken(snapshot=snapshot)
    for turn in range(1, 5):
        yield TurnStarted(turn=turn, attempt=1)
        outcome = TurnOutcome(
            turn=turn,
            worker=WorkerReport(outcome="ok", text="said " * 500),
            snapshot=snapshot,
            verification=VerificationReport(outcome="fail", sandbox="process"),
        )
        yield TurnFinished(record=TurnRecord(outcome=outcome, decision="continue", reason="1 check failed"))
    yield GoalStopped(state=State.PAUSED, detail="goalrun pause")


class Truth:
    """A journal, as its writer left it or as a killed writer did, and what it says.

    Attributes:
        folder: holds the files of the one kind; ``killed`` those of the other.
    """

    def __init__(self, top: Path) -> None:
        self.folder, self.killed = top / "closed", top / "killed"
        self.folder.mkdir()
        path, state = self.folder / "journal.db", None
        journal = SqliteJournal(path, CLOCK)
        for event in life(top):
            _, state = journal.append(event, state)
        shutil.copytree(self.folder, self.killed)
        journal.close()
        assert state is not None
        self.state: GoalState = state
        self.records: list[Record] = list(records(path))
        self.result: dict[str, Any] = read_result(self.folder)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return Truth(tmp_path_factory.mktemp("truth"))


def kept(folder: Path) -> dict[str, bytes]:
    """What must not change: every file but SQLite's own index of the -wal, and a -wal that holds nothing."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.endswith("-shm") and (path.stat().st_size or not path.name.endswith("-wal"))
    }


def cut(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(chance.randrange(path.stat().st_size))


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 2, 50))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def zero(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = chance.randrange(0, len(content), 512)
    size = chance.choice((512, 4096, 16384))
    content[start : start + size] = bytes(len(content[start : start + size]))
    path.write_bytes(content)


def swap(path: Path, chance: random.Random) -> None:
    """Two pages in each other's place."""
    content = bytearray(path.read_bytes())
    one, other = (4096 * chance.randrange(len(content) // 4096) for _ in range(2))
    content[one : one + 4096], content[other : other + 4096] = (
        content[other : other + 4096],
        content[one : one + 4096],
    )
    path.write_bytes(content)


def rows(path: Path, chance: random.Random) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(UNLOCK + chance.choice(SQL))
        db.commit()


def no_wal(path: Path, _: random.Random) -> None:
    path.with_name("journal.db-wal").unlink(missing_ok=True)


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def gone(path: Path, _: random.Random) -> None:
    path.unlink()


def folder_instead(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path, _: random.Random) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE record (seq, at, elapsed, body, digest); INSERT INTO record VALUES (1,2,3,4,5)")


def of_the_wal(damage: Damage) -> Damage:
    def done(path: Path, chance: random.Random) -> None:
        wal = path.with_name("journal.db-wal")
        if wal.exists() and wal.stat().st_size:
            damage(wal, chance)

    return done


RANDOM: tuple[Damage, ...] = (cut, flip, flip, zero, swap, rows, of_the_wal(cut), of_the_wal(flip), of_the_wal(zero))
CERTAIN: tuple[Damage, ...] = (no_wal, empty, gone, folder_instead, foreign)


def copied(truth: Truth, place: Path, chance: random.Random) -> Path:
    """The journal of a goal that ended, or of one that was killed."""
    shutil.copytree(chance.choice((truth.folder, truth.killed)), place)
    return place / "journal.db"


def test_random_damage_is_found_or_harmless_and_the_good_records_can_be_had(truth: Truth, tmp_path: Path) -> None:
    found = salvaged = 0
    for number in range(DAMAGES):
        chance = random.Random(number)  # noqa: S311 - what to damage
        path = copied(truth, tmp_path / f"goal-{number}", chance)
        (CERTAIN[number] if number < len(CERTAIN) else chance.choice(RANDOM))(path, chance)
        before = kept(path.parent)
        found += _found(path, truth, number)
        assert kept(path.parent) == before, f"damage {number}: looking changed something"
        salvaged += _salvaged(path, truth, number)
        shutil.rmtree(path.parent)
    assert found > DAMAGES / 3, "most damages damage something"
    assert salvaged > DAMAGES / 6


def _found(path: Path, truth: Truth, number: int) -> bool:
    """Whether a command would say that there is damage; what it reads otherwise has to be the truth."""
    said = []
    try:
        assert replay(path) == truth.state, f"damage {number}: another history"
    except (JournalCorrupt, UserError) as failure:
        said.append(failure)
    try:
        assert read_result(path.parent) == truth.result, f"damage {number}: another result"
    except (JournalCorrupt, UserError) as failure:
        said.append(failure)
    assert all(str(path) in str(failure) and failure.hint for failure in said), f"damage {number}: {said}"
    return bool(said)


def _salvaged(path: Path, truth: Truth, number: int) -> bool:
    before = kept(path.parent)
    done, said = "", None
    try:
        done = salvage(path, CLOCK)
    except (JournalCorrupt, UserError) as failure:
        said = failure
    if said is not None:
        assert kept(path.parent) == before, f"damage {number}"
        assert "nothing can be resumed" in said.hint or isinstance(said, UserError)
        return False
    now = list(records(path))
    assert now == truth.records[: len(now)], f"damage {number}: another history"
    read_result(path.parent)
    if not done:
        assert now == truth.records, f"damage {number}: silently shorter"
        return False
    after = kept(path.parent)
    assert {name.replace(".damaged-1", ""): data for name, data in after.items() if ".damaged-1" in name} == before
    with closing(SqliteJournal(path, CLOCK)) as journal:
        _, state = journal.append(RunStarted(runner=myself()), replay(path))
    assert replay(path) == state
    return True


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_salvage_that_is_cut_is_finished_and_nobody_reads_half_of_it(
    moved: int, truth: Truth, tmp_path: Path
) -> None:
    path = copied(truth, tmp_path / "goal", random.Random(1))  # noqa: S311
    before = kept(path.parent)
    whole = tmp_path / "whole"
    shutil.copytree(path.parent, whole)
    with closing(sqlite3.connect(whole / "journal.db")) as db:
        db.executescript(UNLOCK + SQL[0])
    salvage(whole / "journal.db", CLOCK)
    # As a kill leaves it: the new file is whole, of the old ones so many are moved.
    shutil.copy(whole / "journal.db", path.with_name("journal.db.salvaged"))
    for name in ("journal.db-wal", "journal.db")[:moved]:
        if path.with_name(name).exists():
            path.with_name(name).rename(path.with_name(name.replace("journal.db", "journal.db.damaged-1")))
    for read in (replay, lambda each: read_result(each.parent)):
        with pytest.raises(JournalCorrupt, match="was cut off"):
            read(path)
    assert "journal.db.damaged-1" in salvage(path, CLOCK)
    assert list(records(path)) == truth.records[:3]
    assert {n.replace(".damaged-1", ""): d for n, d in kept(path.parent).items() if ".damaged-1" in n} == before


COMMANDS = (
    ("list",), ("list", "--json"), ("status", "GOAL"), ("show", "GOAL"), ("logs", "GOAL"), ("diff", "GOAL"),
    ("resume", "GOAL"), ("stop", "GOAL"), ("pause", "GOAL"), ("hint", "GOAL", "a hint"), ("clean",),
    ("restore", "GOAL", "--turn", "1"),
)  # fmt: skip


def views(path: Path, _: random.Random) -> None:
    """Records and views both."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(UNLOCK + HEAD)


@pytest.mark.parametrize("damage", [views, *(pytest.param(each, marks=REST) for each in (cut, empty, foreign))])
def test_every_command_leaves_a_damaged_goal_as_it_is_and_the_other_goals_are_fine(
    damage: Damage, program: Program
) -> None:
    other = program.start("--max-turns", "1", worker="true", check="false").out.split()[1]
    goal = program.start("--max-turns", "2", worker="echo x >> more.txt", check="false").out.split()[1]
    folder = program.home / "goals" / goal
    damage(folder / "journal.db", random.Random(3))  # noqa: S311
    before = {name: found[2] for name, found in fingerprint(folder).items() if not name.endswith(("-shm", "-wal"))}
    for command in COMMANDS:
        done = program.run(*(goal if word == "GOAL" else word for word in command))
        looks = command[0] in {"list", "clean"}
        assert done.code == (0 if looks else 11), (command, done)
        if not looks:
            assert done.err.splitlines()[-2].startswith("goalrun: journal") or "not a goalrun journal" in done.err
            assert "--salvage" in done.err or "nothing can be resumed" in done.err
        after = {name: found[2] for name, found in fingerprint(folder).items() if not name.endswith(("-shm", "-wal"))}
        assert after == before, command
    goals = {each["id"]: each for each in program.goals()}
    assert goals[goal]["unreadable"] is True
    assert goals[other]["state"] == "max_turns"


def test_a_damaged_goal_goes_on_from_its_last_good_record(program: Program) -> None:
    worker = "test -e one && printf 'def total(prices, discount=0): return 180\\n' > shop.py; touch one"
    done = program.start("--max-turns", "1", worker=worker)
    goal, folder = done.out.split()[1], program.home / "goals"
    path = folder / goal / "journal.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{UNLOCK} {LAST}")
        last = db.execute("SELECT max(seq) FROM record").fetchone()[0]
    refused = program.run("resume", "--max-turns", "3", goal)
    assert (refused.code, refused.err.splitlines()[0]) == (11, f"goalrun: journal {path} is damaged at record {last}")
    assert refused.err.splitlines()[1].startswith(f"  try: goalrun resume {goal} --salvage")
    damaged = path.read_bytes()
    resumed = program.run("resume", "--salvage", "--max-turns", "3", goal)
    assert resumed.code == 0, resumed.err
    assert f"{last - 1} good records" in resumed.err
    assert path.with_name("journal.db.damaged-1").read_bytes() == damaged
    shown = program.run("show", "--json", goal).json
    assert (shown["state"], shown["turns"]) == ("achieved", 2)


def test_salvaging_a_sound_journal_is_a_plain_resume(program: Program) -> None:
    goal = program.start("--max-turns", "1", worker="true").out.split()[1]
    resumed = program.run("resume", "--salvage", "--max-turns", "+1", goal)
    assert resumed.code == 3
    assert "the journal is sound" in resumed.err
    assert not list((program.home / "goals" / goal).glob("*.damaged*"))
    assert json.loads(program.run("status", "--json", goal).out)["turns"] == 2


def test_a_salvage_that_finds_no_room_leaves_the_damaged_journal_as_it_is(truth: Truth, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "none", small], check=False, capture_output=True
    ).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        path = small / "journal.db"
        shutil.copy(truth.folder / "journal.db", path)
        views(path, random.Random(1))  # noqa: S311
        with (small / "filler").open("wb") as filler:
            filler.write(b"x" * shutil.disk_usage(small).free)
        before = kept(small)
        with pytest.raises(EnvironmentFailure, match=r"cannot be used|cannot write"):
            salvage(path, CLOCK)
        assert {name: data for name, data in kept(small).items() if ".tmp" not in name} == before
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)

"""The state folder: private, recognised, never somebody else's; ids that say nothing and sort by age."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from adapters.goals import fingerprint, goal_spec

from goalrun.adapters.clock import SystemClock
from goalrun.adapters.home import MARKER, Home, home_folder
from goalrun.adapters.journal import SqliteJournal, replay
from goalrun.adapters.lock import kernel_lock
from goalrun.adapters.views import JOURNAL, RUN_LOCK
from goalrun.core.events import GoalCreated, GoalStopped
from goalrun.core.model import State
from goalrun.errors import EnvironmentFailure, SettingsError, UnknownGoal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> Home:
    """A state folder, made."""
    home = Home(tmp_path / "state")
    home.prepare()
    return home


def created(home: Home, workspace: str, later: float = 0.0) -> str:
    """A goal of a workspace."""
    goal = home.new_goal(NOW + timedelta(seconds=later), Path(workspace))
    home.appear(goal)
    with closing(SqliteJournal(home.folder(goal) / JOURNAL, SystemClock(lambda: None))) as journal:
        journal.append(GoalCreated(spec=goal_spec(Path(workspace), id=goal)), None)
    return goal


def test_the_state_folder_is_the_named_one_else_the_platforms(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home_folder().is_relative_to(home)
    monkeypatch.setenv("GOALRUN_HOME", str(tmp_path / "named"))
    assert home_folder() == tmp_path / "named"
    monkeypatch.setenv("GOALRUN_HOME", "~/mine")
    assert home_folder() == home / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOALRUN_HOME", "relative")
    assert home_folder() == tmp_path / "relative"


def test_the_state_folder_is_for_its_owner_alone_whatever_it_was(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o777)
    (tmp_path / "state").chmod(0o777)
    home = Home(tmp_path / "state")
    home.prepare()
    home.prepare()
    goal = home.new_goal(NOW, Path("/ws"))
    home.appear(goal)
    for folder in (home.path, home.goals, home.folder(goal)):
        assert folder.stat().st_mode & 0o777 == 0o700


def _a_file(path: Path) -> None:
    path.write_text("mine", "utf-8")


def _other_files(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("mine", "utf-8")


def _newer(path: Path) -> None:
    path.mkdir()
    (path / MARKER).write_text("2\n", "utf-8")


def _below_a_file(path: Path) -> None:
    path.symlink_to("thesis/below")
    (path.parent / "thesis").write_text("mine", "utf-8")


@pytest.mark.parametrize("make", [_a_file, _other_files, _newer, _below_a_file])
def test_a_folder_that_is_not_ours_is_refused_and_left_as_it_is(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "state")
    before = fingerprint(tmp_path)
    with pytest.raises(SettingsError) as refused:
        Home(tmp_path / "state").prepare()
    assert str(tmp_path / "state") in str(refused.value)
    assert refused.value.hint
    assert fingerprint(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    with pytest.raises(SettingsError, match="another user"):
        Home(tmp_path / "state").prepare()


def test_a_folder_that_another_goalrun_is_making_or_died_making_is_used(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ".goalrun-state.4242.tmp").write_text("", "utf-8")
    Home(tmp_path / "state").prepare()
    assert Home(tmp_path / "state").ids() == []


def test_many_that_make_the_folder_at_once_all_get_it(tmp_path: Path) -> None:
    """Each round is one fresh folder and six processes, let go by the end of one pipe."""
    program = (
        "import sys; from pathlib import Path; from goalrun.adapters.home import Home\n"
        "for folder in sys.stdin: Home(Path(folder.strip())).prepare(); print('made', flush=True)"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    streams = [(process.stdin, process.stdout) for process in racing]
    for number in range(100):
        for given, _ in streams:
            assert given is not None
            given.write(f"{tmp_path}/{number}\n")
            given.flush()
        for _, told in streams:
            assert told is not None
            assert told.readline() == "made\n"
    for process in racing:
        process.communicate()


def test_ids_have_one_shape_and_sort_by_age(state: Home) -> None:
    made = [
        state.new_goal(NOW + timedelta(seconds=seconds), Path("/ws"))
        for seconds in (0, 0.01, 1, 3600, 86_400, 86_400 * 400)
    ]
    assert all(re.fullmatch(r"g-\d{8}-[a-z2-7]{9}", goal) for goal in made)
    assert state.ids() == []
    for goal in made:
        state.appear(goal)
    assert state.ids() == made[::-1]
    assert made[0].startswith("g-20260102-")


def test_ids_made_at_once_by_many_processes_differ(state: Home) -> None:
    program = (
        "import sys; from datetime import *; from pathlib import Path; from goalrun.adapters.home import Home\n"
        "home = Home(Path(sys.argv[1]))\n"
        "for _ in range(200): print(home.new_goal(datetime(2026, 1, 1, tzinfo=UTC), Path('/ws')))"
    )
    command = [sys.executable, "-c", program, str(state.path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    made = [goal for process in running for goal in process.communicate()[0].split()]
    assert len(made) == len(set(made)) == len(list(state.goals.glob(".g-*"))) == 600


def test_a_goal_is_found_by_id_prefix_or_as_the_newest_of_its_workspace(state: Home) -> None:
    first, second, other = created(state, "/ws"), created(state, "/ws", 1), created(state, "/other", 2)
    assert state.find(first, None) == first
    assert state.find(first[:-2], None) == first
    assert state.find(first.removeprefix("g-"), None) == first
    assert state.find("", Path("/ws")) == second
    assert state.find("", Path("/other")) == other


def test_a_mark_whose_goal_was_never_begun_is_damaged_or_gone_hides_no_other_goal(state: Home) -> None:
    begun, never, gone, cut = (created(state, "/ws", later) for later in (0, 1, 2, 3))
    (state.folder(never) / JOURNAL).unlink()
    state.folder(gone).rename(state.path / "elsewhere")
    # Killed in the middle of a removal: set aside, and its mark still there.
    state.set_aside(cut)
    assert state.find("", Path("/ws")) == begun
    assert state.ids() == [never, begun]
    with state.removing():
        pass
    assert sorted(mark.name for mark in state.path.glob("workspaces/*/*")) == [begun, never]
    assert not any(path.name.startswith(".removed-") for path in state.goals.iterdir())


def test_a_removal_that_was_cut_leaves_no_half_goal_and_is_finished_by_the_next(state: Home) -> None:
    first, second = created(state, "/ws"), created(state, "/ws", 1)
    state.set_aside(first)
    (state.goals / f".removed-{first}" / JOURNAL).unlink()
    assert (state.ids(), [result["id"] for result in state.results(state.ids())]) == ([second], [second])
    state.remove(second)
    assert list(state.goals.iterdir()) == list(state.path.glob("workspaces/*/*")) == []


def test_a_goal_that_cannot_be_marked_is_not_made(state: Home) -> None:
    (state.path / "workspaces").write_text("in the way", "utf-8")
    with pytest.raises(EnvironmentFailure, match="cannot make a goal"):
        state.new_goal(NOW, Path("/ws"))
    assert list(state.goals.iterdir()) == []


def test_an_id_that_is_unknown_or_ambiguous_is_refused(state: Home) -> None:
    first, second = created(state, "/ws"), created(state, "/ws", 1)
    with pytest.raises(UnknownGoal, match=re.escape(f"ambiguous: {first}, {second}")):
        state.find("g-20260102", None)
    for name in ("g-nothing", "../goals", "", "/"):
        with pytest.raises(UnknownGoal):
            state.find(name, Path("/nowhere"))


def test_what_is_no_goal_is_not_listed(state: Home) -> None:
    goal = created(state, "/ws")
    (state.goals / "notes").mkdir()
    (state.goals / ".tmp").touch()
    assert state.ids() == [goal]
    assert Home(state.path / "missing").ids() == []


def test_a_goal_that_cannot_be_read_is_listed_as_such_among_the_others(state: Home) -> None:
    good, bad = created(state, "/ws"), created(state, "/ws", 1)
    (state.folder(bad) / JOURNAL).write_bytes(b"garbage" * 500)
    results = list(state.results(state.ids()))
    assert [result["id"] for result in results] == [bad, good]
    assert (results[0]["state"], results[0]["unreadable"]) == ("error", True)
    assert JOURNAL in results[0]["detail"]
    assert state.find("", Path("/ws")) == good


def test_a_goal_without_a_runner_is_interrupted_only_while_it_should_run(state: Home) -> None:
    goal = created(state, "/ws")
    assert (state.result(goal)["state"], state.result(goal)["pid"]) == ("interrupted", None)
    with closing(SqliteJournal(state.folder(goal) / JOURNAL, SystemClock(lambda: None))) as journal:
        journal.append(GoalStopped(state=State.STOPPED, detail="asked"), replay(state.folder(goal) / JOURNAL))
    assert state.result(goal)["state"] == "stopped"


def test_removing_a_goal_removes_all_of_it_and_nothing_behind_its_links(state: Home, tmp_path: Path) -> None:
    goal, kept = created(state, "/ws"), created(state, "/ws", 1)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    deep = state.folder(goal) / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "link").symlink_to(tmp_path / "precious")
    deep.chmod(0)
    state.remove(goal)
    assert state.ids() == [kept]
    assert (tmp_path / "precious" / "file").exists()


def test_what_a_killed_process_was_making_is_no_goal_and_goes_when_nobody_makes_it(state: Home) -> None:
    dead, making = (state.new_goal(NOW, Path("/ws")) for _ in range(2))
    with kernel_lock(state.unfinished(making) / RUN_LOCK):
        assert state.ids() == []
        with state.removing():
            pass
    assert not state.unfinished(dead).exists()
    assert state.unfinished(making).exists()

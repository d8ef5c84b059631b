"""`goalrun report`: a goal's records and files, gathered for its page, and the page as one file."""

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from goalrun.adapters.files import read_bounded, write_whole
from goalrun.adapters.home import Home
from goalrun.adapters.journal import records
from goalrun.adapters.patches import patches
from goalrun.adapters.views import JOURNAL, REACHED, broken, read_result
from goalrun.cli.reading import find
from goalrun.cli.render import note, out, print_json, seconds
from goalrun.core.flow.outline import graph
from goalrun.errors import EnvironmentFailure, SpecError
from goalrun.flows.call import folder_of
from goalrun.pages.model import GoalPage, Part, Patch, Story, Turn, TurnPage
from goalrun.pages.render import MARK, goal_html
from goalrun.pages.story import files_of, story
from goalrun.wiring.parts import open_store
from goalrun.wiring.session import open_session

ROOM_BYTES = 4 << 20
"""What all texts of a page may take together: a browser opens as much in a second or two."""
MOST_BYTES, LEAST_BYTES, TEXTS_OF_A_TURN = 64 << 10, 512, 8
TOTAL_BYTES = 512 << 10
MAX_PARTS = 60
CALL = r"-[0-9a-f]{8}-[0-9]+"
"""What follows a step in the name of the folder of one call: its key, and a number."""


def report(name: str, output: Path | None, *, as_json: bool) -> int:
    """Write a goal's page as one file, and print where it is."""
    session = open_session(write=False)
    goal = find(session.home, name)
    path = output if output is not None else Path(f"{goal}.html")
    _require_ours(path)
    page = gathered(session.home, goal)
    try:
        write_whole(path, goal_html(page, seconds).encode("utf-8", "replace"), durable=False)
    except EnvironmentFailure as failure:
        raise SpecError(str(failure), hint="-o FILE names another place") from failure
    if as_json:
        print_json({"schema": 1, "id": goal, "path": str(path.absolute())})
    else:
        out(str(path.absolute()))
    spec = page.story.state.spec
    if page.result["state"] not in REACHED and path.resolve().is_relative_to(spec.workspace):
        note("it lies in the workspace: the worker of a next turn can read it, hidden checks included; -o FILE")
    return 0


def _require_ours(path: Path) -> None:
    """Refuse to write over what is no report."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SpecError(f"{path} cannot be written: there is no such folder to write a file in", hint="-o FILE")
    with suppress(FileNotFoundError), path.open("rb") as file:
        if MARK.encode() not in file.readline(200):
            raise SpecError(f"{path} is there already, and is no report of goalrun", hint="-o FILE names another one")


def gathered(home: Home, goal: str, room: int = ROOM_BYTES) -> GoalPage:
    """All that a goal's page shows.

    Args:
        home: the state folder.
        goal: its id.
        room: bytes of all texts together, about.

    Raises:
        JournalCorrupt: its journal cannot be read.
    """
    folder = home.folder(goal)
    result = read_result(folder, turns=False)
    try:
        told = story(records(folder / JOURNAL))
    except ValueError as failure:
        raise broken(folder / JOURNAL, failure) from failure
    most = max(LEAST_BYTES, min(MOST_BYTES, room // max(1, len(told.turns)) // TEXTS_OF_A_TURN))
    total, changes = _changes(folder, told, most)
    flow = told.state.spec.flow
    return GoalPage(
        result=result,
        story=told,
        folder=str(folder),
        turns=tuple(
            TurnPage(turn, tuple(_parts(folder, turn, most)), patch)
            for turn, patch in zip(told.turns, changes, strict=True)
        ),
        total=total,
        most=most,
        graph=graph(flow.flow) if flow is not None else "",
    )


def _changes(folder: Path, told: Story, most: int) -> tuple[Patch, list[Patch]]:
    """What changed since the base, and in each turn."""
    state = told.state
    if state.base is None or state.last_snapshot is None:
        return Patch(), [Patch() for _ in told.turns]
    trees = [state.base.tree]
    trees += [turn.snapshot.tree if turn.snapshot is not None else "" for turn in told.turns]
    # One that is under way has no snapshot yet: nothing is known of what it changed.
    pairs = [(before, after or before) for before, after in itertools.pairwise(trees)]
    store = open_store(folder, state.spec)
    (total,) = patches(store, [(state.base.tree, state.last_snapshot.tree)], TOTAL_BYTES)
    return total, patches(store, pairs, most)


def _parts(folder: Path, turn: Turn, most: int) -> Iterator[Part]:
    """The texts of a turn that are there and not empty, their heads and tails."""
    for title, name in islice((*_of_steps(folder, turn), *files_of(turn)), MAX_PARTS):
        # A file that is not there yet, or no longer, is no failure: the records hold what counts.
        with suppress(OSError):
            text = read_bounded(folder / name, most // 3, most - most // 3) if name else ""
            if text.strip():
                yield Part(title, text, name)


def _of_steps(folder: Path, turn: Turn) -> Iterator[tuple[str, str]]:
    """What the calls of a flow were told and printed, in the order of its steps."""
    places = sorted(folder.glob(f"turns/turn-{turn.number}/flow-*/*"))
    for path in turn.steps:
        name = re.compile(re.escape(folder_of(path)) + CALL)
        for place in (each.relative_to(folder) for each in places if name.fullmatch(each.name)):
            yield f"Step {path}: what it was told", f"{place}/prompt.md"
            yield f"Step {path}: what it printed", f"{place}/stdout"

"""clean and config."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

from goalrun.adapters.clock import utc_now
from goalrun.adapters.clones import clones_of
from goalrun.adapters.files import remove_tree
from goalrun.adapters.home import Home, home_folder
from goalrun.adapters.prepare import forget
from goalrun.adapters.views import REACHED
from goalrun.cli.render import note, out, print_json
from goalrun.core.evidence import count
from goalrun.core.value import duration
from goalrun.errors import SettingsError
from goalrun.settings import load, user_file
from goalrun.wiring.session import open_session, workspace_here


def clean(older_than: str, keep: int, *, dry_run: bool, as_json: bool) -> int:
    """Remove achieved goals, and cached results of ``--prepare``, that are old enough."""
    try:
        age = timedelta(seconds=duration(older_than))
    except (ValueError, OverflowError) as failure:
        raise SettingsError(f"--older-than: {failure}") from failure
    home = open_session().home
    with home.removing() if not dry_run else nullcontext():
        known = home.ids()
        wanted = list(_to_remove(home, known, age, keep))
        busy = [] if dry_run else [goal for goal in wanted if not home.set_aside(goal)]
    gone = [goal for goal in wanted if goal not in busy]
    for goal in [] if dry_run else gone:
        remove_tree(clones_of(home.path) / goal)
    kept = len(known) - len(gone)
    for goal in busy:
        note(f"{goal} is kept: another command has it in its hands")
    before = (utc_now() - age).timestamp()
    prepared = forget(home.path, lambda used: used <= before, dry_run=dry_run)
    if as_json:
        print_json({"schema": 1, "removed": gone, "kept": kept, "prepared": prepared, "dry_run": dry_run})
    else:
        verb = "would remove" if dry_run else "removed"
        out(f"{verb} {count(len(gone), 'achieved goal')}, kept {kept}")
        for goal in gone:
            out(f"  {goal}")
        if prepared:
            out(f"{verb} {count(prepared, 'cached result')} of --prepare")
    return 0


def _to_remove(home: Home, known: list[str], age: timedelta, keep: int) -> Iterator[str]:
    """The achieved goals that are old enough, but for the newest ``keep`` of each workspace."""
    met: Counter[str] = Counter()
    for result in home.results(known, turns=False):
        if result["state"] not in REACHED or result.get("unreadable"):
            continue
        met[result["workspace"]] += 1
        old = utc_now() - datetime.fromisoformat(result["created_at"]) >= age
        if old and met[result["workspace"]] > keep:
            yield str(result["id"])


def config(*, as_json: bool) -> int:
    """The settings in force here."""
    open_session(write=False)
    workspace, _ = workspace_here()
    loaded = load(workspace)
    values = loaded.settings.model_dump(mode="json")
    if as_json:
        print_json({"schema": 1, "settings": values, "sources": loaded.sources})
        return 0
    for key, value in _flat(values):
        source = next(
            (found for name, found in loaded.sources.items() if key == name or key.startswith(f"{name}.")), ""
        )
        out(f"{key} = {value!r}" + (f"   # {source}" if source else ""))
    note(f"looked in {user_file()}, {workspace / 'goalrun.toml'}, {workspace / 'pyproject.toml'}")
    note(f"state is in {home_folder()}{' (GOALRUN_HOME)' if os.environ.get('GOALRUN_HOME') else ''}")
    return 0


def _flat(values: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value

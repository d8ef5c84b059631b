"""The last lines of a run: they name the command that goes on."""

from pathlib import Path
from typing import Any

import pytest
from support import Program

from goalrun.cli.render import ending


def result(state: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    limits = {"max_turns": 4, "max_tokens": None, "max_usd": None, "max_time": None, **changes.pop("limits", {})}
    usage = {"total_tokens": None, "usd": None, "seconds": 9.0, **changes.pop("usage", {})}
    return {
        "id": "g-1", "state": state, "detail": "so it is", "turns": 2, "best_turn": 2, "limits": limits,
        "usage": usage, "snapshot": {"commit": "c" * 40}, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("of", "command"),
    [
        (result("max_turns"), "goalrun resume g-1 --max-turns +4"),
        (result("stuck"), "goalrun resume g-1 --hint TEXT"),
        (result("waiting"), "goalrun answer g-1 yes|no|TEXT"),
        (result("paused"), "goalrun resume g-1"),
        (result("interrupted"), "goalrun resume g-1"),
        (result("blocked"), "goalrun resume g-1 (--hint TEXT says so)"),
        (result("budget_exceeded", limits={"max_usd": 0.5}, usage={"usd": 0.6}), "resume g-1 --max-usd +0.5"),
        (result("budget_exceeded", limits={"max_usd": 0.5}), "resume g-1 --allow-unknown-spend"),
        (result("budget_exceeded", limits={"max_time": 5.0, "max_tokens": 9}, usage={"total_tokens": 3}),
         "resume g-1 --max-time +5"),
    ],
)  # fmt: skip
def test_the_end_names_the_next_command(of: dict[str, Any], command: str) -> None:
    assert list(ending(of))[-1].endswith(command)


def test_an_end_that_nothing_follows_names_none_and_a_better_turn_is_named() -> None:
    assert not any("go on" in line for state in ("achieved", "done", "running") for line in ending(result(state)))
    better = list(ending(result("stuck", best_turn=1)))
    assert "  turn 1 was better than the last: goalrun restore g-1 --turn best" in better


def test_the_command_that_an_end_names_can_be_given_as_it_stands(program: Program, tmp_path: Path) -> None:
    done = program.start("--max-turns", "1", worker=f"echo >> {tmp_path}/turns", check="false")
    command = done.out.splitlines()[-1].partition("go on: goalrun ")[2]
    assert command.endswith("--max-turns +1")
    assert program.run(*command.split()).code == 3
    assert (tmp_path / "turns").read_text() == "\n\n"

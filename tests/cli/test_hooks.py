"""``[hooks]``: commands that are told of what happens, and cannot change it."""

import json
from pathlib import Path
from typing import Any

from support import GOOD_WORKER, Program


def hooked(program: Program, lines: str) -> None:
    (program.cwd / "goalrun.toml").write_text(f"[hooks]\n{lines}\n", encoding="utf-8")


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_hooks_get_turns_and_the_end_as_json(program: Program, tmp_path: Path) -> None:
    log = tmp_path / "log"
    hooked(program, f"turn = 'cat >> {log}; echo >> {log}'\nend = 'cat >> {log}; echo >> {log}'")
    done = program.start(worker=GOOD_WORKER)
    assert done.code == 0, done.err
    events = told(log)
    assert [each["event"] for each in events] == ["turn", "end"]
    assert [each["goal"]["state"] for each in events] == ["achieved", "achieved"]
    assert events[0]["record"]["event"]["record"]["decision"] == "achieved"


def test_hooks_that_fail_hang_or_kill_what_they_see_change_nothing(program: Program, tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    hooked(program, f"turn = 'exit 3'\nend = 'touch {mark}; kill -STOP $PPID; sleep 1000'")
    done = program.start(worker=GOOD_WORKER)
    assert (done.code, mark.exists()) == (0, True), done.err


def test_hooks_of_a_flow_get_steps_members_and_blocks(program: Program, tmp_path: Path) -> None:
    log = tmp_path / "log"
    hooks = "\n".join(f"{name} = 'cat >> {log}; echo >> {log}'" for name in ("step", "member", "block", "end"))
    hooked(program, hooks)
    (program.cwd / "flow.toml").write_text(
        '[[step]]\nid = "fan"\neach = ["a", "b"]\nrun = ["echo", "{item}"]\n'
        '[[step]]\nid = "gate"\nneeds = ["fan"]\ngate = true\nrun = ["echo", "VERDICT: BLOCK no"]\n',
        encoding="utf-8",
    )
    assert program.run("flow", "run", "flow.toml").code == 6
    names = [each["event"] for each in told(log)]
    assert sorted(names) == ["block", "block", "end", "member", "member", "step", "step"]

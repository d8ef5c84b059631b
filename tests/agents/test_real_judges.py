"""The real agents as judges, with a scripted model: locked down, believed only word for word, and paid for."""

import re
from pathlib import Path
from typing import Any

import pytest
from agents.programs import AGENTS, ALL, FIX, Machine, configure, events, machine, require
from agents.server import Answer, Limited, ModelServer, Say
from agents.wires import Usage, declared, wire_of
from support import CHECK, GOOD_WORKER, Done, write

JUDGES = [name for name, agent in AGENTS.items() if agent.judge is not None]
QUICK = ["claude", "codex"]
only_all = pytest.mark.skipif(not ALL, reason="in the share that runs with GOALRUN_AGENTS_TESTS=all")
NONCE = re.compile(r'nonce\\*": \\*"([\w-]+)')
RULE = "The marmalade is in the cellar."
CONTEXT = dict.fromkeys(("AGENTS.md", "CLAUDE.md", "GEMINI.md", "QWEN.md", ".github/copilot-instructions.md"), RULE)


def verdict(*, achieved: bool, reason: str = "the diff shows it") -> Answer:
    """A verdict with the nonce that the brief asks for."""

    def made(prompt: str) -> dict[str, Any]:
        nonce = NONCE.search(prompt)
        assert nonce is not None, "no brief"
        return {"nonce": nonce[1], "achieved": achieved, "blocked": False, "reason": reason}

    return Answer(made)


def judged(program: Machine, *judges: str, options: tuple[str, ...] = ()) -> Done:
    """``goalrun start`` with a worker that fixes the project."""
    named = [word for judge in judges for word in ("-j", judge)]
    return program.start(*named, "--max-turns", "1", "--json", *options, worker=GOOD_WORKER)


def counted(usage: Usage) -> tuple[int, int, int]:
    return usage.input, usage.output, usage.input + usage.output


def told(usage: dict[str, int]) -> tuple[int, int, int]:
    return usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]


@pytest.mark.parametrize("name", JUDGES if ALL else QUICK)
def test_a_judge_that_agrees_is_locked_down_and_paid_for(name: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    write(project, CONTEXT)
    with ModelServer([verdict(achieved=True)]) as server:
        program = machine(tmp_path, project, **{name: server})
        done = judged(program, name)
        assert (done.code, done.json["state"]) == (0, "achieved"), done
        assert f"judge {name} agrees" in done.json["detail"]
        for request in server.main:
            wire = wire_of(request.path)
            assert wire is not None
            assert sorted(tool.name for tool in declared(wire, request.body)) == list(agent.tools)
            assert RULE not in str(request.body)
        [record] = done.json["turn_records"]
        assert told(record["judgement"]["usage"]) == counted(server.usage)
    [kept] = [event["judgement"] for event in events(program, "judgement_finished")]
    brief, reply = (next(program.home.rglob(kept[what])).read_text() for what in ("brief", "reply"))
    assert "# Diff from the base" in brief
    nonce = NONCE.search(brief)
    assert nonce is not None
    assert nonce[1] in reply


@only_all
@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_that_does_not_agree(name: str, tmp_path: Path, project: Path) -> None:
    require(name)
    with ModelServer([verdict(achieved=False, reason="the docstring is missing")]) as server:
        done = judged(machine(tmp_path, project, **{name: server}), name)
    assert (done.code, done.json["state"]) == (3, "max_turns"), done
    assert done.json["verdict"] == {"achieved": False, "reason": "the docstring is missing"}


@only_all
@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_without_a_verdict_is_an_error_that_can_be_resumed(name: str, tmp_path: Path, project: Path) -> None:
    require(name)
    with ModelServer([Say("It is achieved, I think.")]) as server:
        program = machine(tmp_path, project, **{name: server})
        done = judged(program, name)
        assert (done.code, done.json["state"], done.json["turns"]) == (11, "error", 0), done
        assert f"judge {name} gave no verdict in 2 attempts" in done.json["detail"]
        server.follow([verdict(achieved=True)])
        done = program.run("resume", "--json")
        assert (done.code, done.json["state"], done.json["turns"]) == (0, "achieved", 1), done
    # The worker's turn, and the checks, were not done again.
    assert len(events(program, "worker_ended")) == 1


@only_all
@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_that_is_limited(name: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    with ModelServer([agent.limited]) as server:
        program = machine(tmp_path, project, **{name: server})
        configure(tmp_path, name, judge_timeout=agent.slow)
        done = judged(program, name, options=("--no-wait-quota",))
    assert (done.code, done.json["state"], done.json["turns"]) == (10, "rate_limited", 0), done
    assert f"{name} has reached its provider's limit" in done.json["detail"]


@pytest.mark.parametrize("agrees", [True, False])
def test_two_judges_both_have_to_agree(agrees: bool, tmp_path: Path, project: Path) -> None:  # noqa: FBT001
    require("claude")
    require("codex")
    with ModelServer([verdict(achieved=True)]) as first, ModelServer([verdict(achieved=agrees)]) as second:
        program = machine(tmp_path, project, claude=first, codex=second)
        done = judged(program, "claude", "codex")
        assert done.json["state"] == ("achieved" if agrees else "max_turns"), done
        [record] = done.json["turn_records"]
        assert record["judgement"]["judge"] == "claude and codex"
        assert told(record["judgement"]["usage"]) == counted(first.usage + second.usage)


def test_worker_and_judge_are_paid_for_together(tmp_path: Path, project: Path) -> None:
    require("claude")
    with ModelServer([*FIX, verdict(achieved=True)]) as server:
        program = machine(tmp_path, project, claude=server)
        # The worker's own agent judges, if nobody is named.
        done = program.run("start", "make tests pass", "-w", "claude", "-c", CHECK, "--json")
        assert (done.code, done.json["state"]) == (0, "achieved"), done
        assert "judge claude agrees" in done.json["detail"]
        assert told(done.json["usage"]) == counted(server.usage)
        assert done.json["usage"]["usd"] > 0


def test_a_judge_stands_in_for_one_that_is_limited(tmp_path: Path, project: Path) -> None:
    require("claude")
    require("codex")
    with ModelServer([Limited(3600)]) as limited, ModelServer([verdict(achieved=True)]) as server:
        program = machine(tmp_path, project, claude=limited, codex=server)
        done = judged(program, "claude,codex")
        assert (done.code, done.json["state"]) == (0, "achieved"), done
        assert "judge codex agrees" in done.json["detail"]

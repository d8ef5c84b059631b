"""The real agents, driven by the real program, with a scripted model: what the issue asks of each of them."""

import os
import shutil
import stat
import subprocess
import sys
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from zlib import decompress
from zlib import error as NotDeflated  # noqa: N812 - what it means

import psutil
import pytest
from agents.programs import (
    AGENTS,
    ALL,
    FIX,
    KEY,
    SECONDS,
    configure,
    events,
    machine,
    require,
    search_path,
    start,
)
from agents.server import Limited, ModelServer, Refused, Run, Say, Slow
from agents.wires import Usage
from support import CHECK, FIXED, MEASURE, Done, script, wait_until

from goalrun.adapters.clock import utc_now
from goalrun.adapters.identity import GOAL_VARIABLE
from goalrun.core.evidence import REDACTED

SHARE = [name for name, agent in AGENTS.items() if ALL or agent.first]
QUICK = ["claude"]
FAILING = [name for name in SHARE if ALL or name in {"claude", "codex"}]
"""The others take long to start; what they print when they fail is in ``streams``, too."""
WITH_SESSION = [name for name, agent in AGENTS.items() if agent.session]
only_all = pytest.mark.skipif(not ALL, reason="in the share that runs with GOALRUN_AGENTS_TESTS=all")
LOOKED = "I have only looked at the marmalade."


def counted(usage: Usage) -> tuple[int, int, int]:
    return usage.input, usage.output, usage.input + usage.output


def told(usage: dict[str, int]) -> tuple[int, int, int]:
    return usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]


def fixed(done: Done, project: Path) -> bool:
    return done.code == 0 and done.json["state"] == "achieved" and (project / "shop.py").read_text() == FIXED


@pytest.mark.parametrize("name", SHARE)
def test_fixes_the_project_and_reports_what_it_spent(name: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    with ModelServer(agent.fix) as server:
        program = machine(tmp_path, project, **{name: server})
        done = start(program, name)
        assert fixed(done, project), done
        assert done.json["turns"] == 1
        assert told(done.json["usage"]) == counted(server.usage)
        cost = done.json["usage"]["usd"]
        assert cost > 0 if agent.cost else cost is None
    [ended] = events(program, "worker_ended")
    assert (ended["report"]["agent"], ended["report"]["model"]) == (name, agent.model)
    assert bool(ended["report"]["session"]) == bool(agent.session)


@pytest.mark.parametrize("name", FAILING)
def test_a_limit_is_told_from_a_failure(name: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    with ModelServer([agent.limited]) as server:
        program = machine(tmp_path, project, **{name: server})
        done = start(program, name, "--no-wait-quota", "--turn-timeout", f"{agent.slow}s")
    assert (done.code, done.json["state"], done.json["turns"]) == (10, "rate_limited", 0), done
    assert f"{name} has reached its provider's limit" in done.json["detail"]
    [failed] = events(program, "agent_failed")
    assert failed["until"] in done.json["detail"]
    far = (utc_now().timestamp() + 1800) < parsed(failed["until"])
    assert far == agent.reset


@pytest.mark.parametrize("name", FAILING)
def test_a_bad_key_is_an_error_that_names_the_agent(name: str, tmp_path: Path, project: Path) -> None:
    require(name)
    with ModelServer([Refused()]) as server:
        program = machine(tmp_path, project, **{name: server})
        done = start(program, name)
    assert (done.code, done.json["state"], done.json["turns"]) == (11, "error", 0), done
    assert done.json["detail"].startswith(f"{name}: ")
    assert any(words in done.json["detail"] for words in ("API key", "API_KEY", "api_key"))


@pytest.mark.parametrize("name", AGENTS if ALL else QUICK)
def test_a_run_that_is_killed_goes_on(name: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    slow = Slow()
    # Some run their commands in sessions of their own; aider runs none.
    left = () if name == "aider" else (Run("sleep 4321 > /dev/null 2>&1 & echo started"),)
    with ModelServer([*left, slow, *agent.fix]) as server:
        program = machine(tmp_path, project, **{name: server})
        process = program.spawn("start", "make tests pass", "-w", name, "-c", CHECK, "-j", "none", "--json")
        try:
            assert slow.begun.wait(SECONDS)
            [goal] = [each["id"] for each in program.goals()]
            assert carriers(goal)
        finally:
            process.kill()
            process.communicate()
        wait_until(lambda: not carriers(goal), f"all that {name} started is gone")
        slow.gate.set()
        done = program.run("resume", goal, "--json")
        assert fixed(done, project), done
        assert done.json["turns"] == 1


@pytest.mark.parametrize("name", WITH_SESSION if ALL else QUICK)
def test_a_session_goes_on_and_is_paid_for_once(name: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    with ModelServer([Say(LOOKED), *agent.fix]) as server:
        program = machine(tmp_path, project, **{name: server})
        configure(tmp_path, name, session="resume")
        done = start(program, name)
        assert fixed(done, project), done
        again = server.main[1]
        assert LOOKED in str(again.body)
        asked = server.requests
        begun = next(at for at, request in enumerate(asked) if request is again)
        # Some ask something in the background after a turn, and count that too.
        spent = [sum((each.usage for each in turn), Usage()) for turn in (asked[:begun], asked[begun:])]
        assert [told(each["worker"]["usage"]) for each in done.json["turn_records"]] == list(map(counted, spent))
        assert told(done.json["usage"]) == counted(spent[0] + spent[1])
    sessions = [event["report"]["session"]["id"] for event in events(program, "worker_ended")]
    assert sessions[0] == sessions[1]


@only_all
@pytest.mark.parametrize("name", WITH_SESSION)
def test_a_session_that_is_gone_is_begun_anew(name: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    with ModelServer([Say(LOOKED), *agent.fix]) as server:
        program = machine(tmp_path, project, **{name: server})
        configure(tmp_path, name, session="resume")
        assert start(program, name, "--max-turns", "1").json["state"] == "max_turns"
        shutil.rmtree(tmp_path / "home" / agent.session)
        done = program.run("resume", "--max-turns", "+1", "--json")
        assert fixed(done, project), done
        assert LOOKED not in str(server.main[1].body)
        assert told(done.json["usage"]) == counted(server.usage + server.background_usage)


def test_waits_until_a_subscription_may_be_used_again(tmp_path: Path, project: Path) -> None:
    agent = require("claude")
    reset = int(utc_now().timestamp()) + 6
    headers = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(reset),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    with ModelServer([Limited(None, headers=headers), *agent.fix]) as server:
        program = machine(tmp_path, project, claude=server)
        program.environment["CLAUDE_CODE_OAUTH_TOKEN"] = program.environment.pop(agent.key)
        done = start(program, "claude")
        assert fixed(done, project), done
        assert done.json["turns"] == 1
        assert told(done.json["usage"]) == counted(server.usage)
    [wait] = events(program, "quota_wait")
    assert parsed(wait["until"]) >= reset
    assert events(program, "quota_over")


def test_another_agent_stands_in_for_one_that_is_limited(tmp_path: Path, project: Path) -> None:
    require("claude")
    require("codex")
    with ModelServer([Limited(3600)]) as limited, ModelServer(FIX) as server:
        program = machine(tmp_path, project, claude=limited, codex=server)
        done = start(program, "claude,codex")
        assert fixed(done, project), done
        assert told(done.json["usage"]) == counted(server.usage)
        assert len(limited.main) == 1
    assert [event["report"]["agent"] for event in events(program, "worker_ended")] == ["codex"]
    assert not events(program, "quota_wait")


@pytest.mark.parametrize("name", AGENTS if ALL else QUICK)
def test_a_key_is_written_down_nowhere(name: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    coded = b64encode(KEY.encode()).decode()
    # aider runs no commands.
    echo = () if name == "aider" else (Run(f"echo {KEY}; printf %s {KEY} | base64; env"),)
    with ModelServer([*echo, Say(f"The key is {KEY}, or {coded}."), *agent.fix]) as server:
        program = machine(tmp_path, project, **{name: server})
        done = start(program, name)
        assert fixed(done, project), done
        assert all(KEY in str(request.body) for request in server.main[1:2] if echo)
    kept = [(path, text) for path in program.home.rglob("*") if path.is_file() for text in contents(path)]
    assert any(REDACTED.encode() in text for _, text in kept)
    assert not [path for path, text in kept if KEY.encode() in text or coded.encode() in text]


@pytest.mark.parametrize(("name", "flag"), [("claude", "--max-budget-usd"), *([("mini", "-l")] if ALL else [])])
def test_what_remains_of_a_budget_is_the_agents_own(name: str, flag: str, tmp_path: Path, project: Path) -> None:
    agent = require(name)
    log, launcher = tmp_path / "argv", tmp_path / "bin" / name
    launcher.parent.mkdir()
    program_path = shutil.which(name, path=search_path())
    launcher.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {log}\nexec {program_path} "$@"\n')
    launcher.chmod(stat.S_IRWXU)
    with ModelServer([Say(LOOKED), *agent.fix]) as server:
        program = machine(tmp_path, project, **{name: server})
        program.environment["PATH"] = f"{launcher.parent}{os.pathsep}{search_path()}"
        done = start(program, name, "--max-usd", "0.5")
        assert fixed(done, project), done
    spent = done.json["turn_records"][0]["worker"]["usage"]["usd"]
    assert spent > 0
    given = [line.split(f"{flag} ")[-1].split()[0] for line in log.read_text().splitlines() if f"{flag} 0." in line]
    assert given == ["0.5000", f"{0.5 - spent:.4f}"]


FLOOD = f"""
import os, sys

if "--version" in sys.argv:
    print("2.1.329 (Claude Code)")
    sys.exit()
open("shop.py", "w").write({FIXED!r})
os.write(1, b'{{"type":"system","subtype":"init","session_id":"s","model":"m"}}\\n')
for number in range(10):
    os.write(2, b"a complaint in between \\xff\\n")
    os.write(1, b'{{"type":"assistant","message":{{"content":[{{"type":"text","text":"')
    for part in range(20):
        os.write(1, b"\\xff\\xfe\\x00 " * (1 << 18))
    os.write(1, b'"}}]}}}}\\n')
os.write(1, b'{{"type":"result","subtype":"success","is_error":false,"usage":{{"input_tokens":1')
"""


def test_a_flood_of_output_is_survived(tmp_path: Path, project: Path) -> None:
    program = machine(tmp_path, project)
    launcher = tmp_path / "bin" / "claude"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec {script(tmp_path / "flood.py", FLOOD)} "$@"\n')
    launcher.chmod(stat.S_IRWXU)
    program.environment["PATH"] = f"{launcher.parent}{os.pathsep}{search_path()}"
    peak = tmp_path / "peak"
    # From a small process: a new one's peak begins with that of the one that started it.
    argv = [sys.executable, "-c", MEASURE, str(peak), sys.executable, "-P", "-m", "goalrun", "start", "make tests pass"]
    argv += ["-w", "claude", "-c", CHECK, "-j", "none", "--json"]
    ran = subprocess.run(argv, cwd=program.cwd, env=program.env(), capture_output=True, text=True, check=False)
    done = Done(ran.returncode, ran.stdout, ran.stderr)
    assert fixed(done, project), done
    assert done.json["usage"]["total_tokens"] is None
    assert done.json["usage"]["usd"] is None
    # Linux counts in KiB. The stream is of 200 MB; what is seen is half of this.
    assert int(peak.read_text()) < 150_000
    kept = sum(path.stat().st_size for path in program.home.rglob("*") if path.is_file())
    assert kept < 20 << 20


def parsed(moment: str) -> float:
    return utc_now().fromisoformat(moment).timestamp()


def carriers(goal: str) -> list[int]:
    """The processes that carry a goal's id, whatever namespace they are in."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(GOAL_VARIABLE) == goal and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def contents(path: Path) -> list[bytes]:
    """A file as it is, and as git packed it."""
    data = path.read_bytes()
    with suppress(NotDeflated):
        return [data, decompress(data)]
    return [data]

"""The real coding agents, each pointed at the scripted model on loopback: by files in an empty home, and variables.

``python -m agents.programs`` in the folder above runs each of them, and prints a table of what it was seen to do.
"""

import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from agents.server import Edit, Limited, ModelServer, Say, Step
from support import CHECK, CODE, FIXED, Done, Program, shop, write

from goalrun.adapters.agents.probe import probe
from goalrun.adapters.clock import utc_now
from goalrun.adapters.home import Home
from goalrun.asking import QUOTA_SECONDS
from goalrun.settings import preset_agents

ALL = os.environ.get("GOALRUN_AGENTS_TESTS") == "all"
"""Every test of every agent; else the share that runs everywhere."""
KEY = "goalrun-test-key-8d2f61c07b"
FIX: tuple[Step, ...] = (Edit("shop.py", CODE, FIXED), Say("The discount is applied."))
LIMITED = Limited(1)
SECONDS = 110
"""For one run of goalrun. Some agents start slowly, and some try again for a while before they say what failed."""


@dataclass(frozen=True)
class Agent:
    """An agent, and what is known of it. In texts, ``{url}`` is the server's address, and ``{home}`` the home folder.

    Attributes:
        key: the variable that holds its provider's key.
        files: by their path below the home folder.
        model: what it says that it asked; "" if it does not.
        cost: it names what a model costs, or its model's price is known.
        session: where it keeps its sessions, below the home folder; "" if it has none.
        fix: what the model does to fix the project.
        hasty: variables by which the preset's own are replaced, so that it gives up soon.
        limited: a limit at which it gives up soon.
        slow: seconds after which it is not waited for any longer when it is limited.
        reset: it tells when a limit ends.
        judge: words that its judge needs beside those of the preset, in front of the last one; None if it has no judge.
        tools: what its judge is offered all the same; none of them reaches the project.
        first: it is in the share that runs everywhere.
    """

    name: str
    key: str
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    cost: bool = True
    session: str = ""
    fix: tuple[Step, ...] = FIX
    hasty: Mapping[str, str] = field(default_factory=dict)
    limited: Limited = LIMITED
    slow: int = 90
    reset: bool = False
    judge: tuple[str, ...] | None = ()
    tools: tuple[str, ...] = ()
    first: bool = False


OPENCODE = {
    "autoupdate": False,
    "share": "disabled",
    "model": "mock/scripted",
    "provider": {
        "mock": {
            "npm": "@ai-sdk/openai-compatible",
            "name": "mock",
            "options": {"baseURL": "{url}/v1", "apiKey": "{env:MOCK_API_KEY}"},
            "models": {
                "scripted": {
                    "name": "scripted",
                    "limit": {"context": 100_000, "output": 8_000},
                    "cost": {"input": 3, "output": 15, "cache_read": 0.3},
                }
            },
        }
    },
}
INLINE = ", ".join(
    f"{key}={json.dumps(value)}"
    for key, value in {
        "name": "mock",
        "base_url": "{url}/v1",
        "env_key": "MOCK_API_KEY",
        "wire_api": "responses",
        "request_max_retries": 0,
        "stream_max_retries": 0,
    }.items()
)
CODEX = f'model = "scripted"\nmodel_provider = "mock"\nmodel_providers.mock = {{{INLINE}}}\n'
PI_MODELS = {
    "providers": {
        "mock": {
            "baseUrl": "{url}/v1",
            "api": "openai-completions",
            "apiKey": "MOCK_API_KEY",
            "models": [
                {
                    "id": "scripted",
                    "cost": {"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75},
                    "contextWindow": 100_000,
                    "maxTokens": 8_000,
                }
            ],
        }
    }
}
PI = {"defaultProvider": "mock", "defaultModel": "scripted", "retry": {"enabled": False}}
GEMINI = {
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "general": {"maxAttempts": 1, "enableAutoUpdate": False},
    "privacy": {"usageStatisticsEnabled": False},
}
QWEN = {"security": {"auth": {"selectedType": "openai"}}}

AGENTS = {
    each.name: each
    for each in (
        Agent(
            "claude",
            "ANTHROPIC_API_KEY",
            env={
                "ANTHROPIC_BASE_URL": "{url}",
                "ANTHROPIC_MODEL": "claude-sonnet-4-5",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "DISABLE_AUTOUPDATER": "1",
                "IS_SANDBOX": "1",
            },
            model="claude-sonnet-4-5",
            hasty={"CLAUDE_CODE_MAX_RETRIES": "0"},
            limited=Limited(3600),
            first=True,
            session=".claude/projects",
            tools=("StructuredOutput",),
        ),
        Agent(
            "codex",
            "MOCK_API_KEY",
            files={".codex/config.toml": CODEX},
            cost=False,
            first=True,
            session=".codex/sessions",
            # Its judge does not read config.toml.
            judge=("-c", 'model="scripted"', "-c", 'model_provider="mock"', "-c", f"model_providers.mock={{{INLINE}}}"),
            tools=("request_user_input", "view_image"),
        ),
        Agent(
            "opencode",
            "MOCK_API_KEY",
            env={
                "OPENCODE_CONFIG": "{home}/opencode.json",
                "OPENCODE_DISABLE_AUTOUPDATE": "1",
                "OPENCODE_DISABLE_MODELS_FETCH": "1",
            },
            files={"opencode.json": json.dumps(OPENCODE)},
            # It waits by the first of them, and says the second.
            limited=Limited(3600, headers={"retry-after-ms": "10"}),
            reset=True,
            first=True,
            session=".local/share/opencode",
        ),
        Agent(
            "pi",
            "MOCK_API_KEY",
            env={"PI_OFFLINE": "1", "PI_TELEMETRY": "0"},
            files={".pi/agent/models.json": json.dumps(PI_MODELS), ".pi/agent/settings.json": json.dumps(PI)},
            model="scripted",
            session=".pi/agent/sessions",
        ),
        Agent(
            "gemini",
            "GEMINI_API_KEY",
            env={"GOOGLE_GEMINI_BASE_URL": "{url}", "GEMINI_MODEL": "gemini-2.5-pro"},
            files={".gemini/settings.json": json.dumps(GEMINI)},
            model="gemini-2.5-pro",
            limited=Limited(3600),
            reset=True,
            session=".gemini/tmp",
        ),
        Agent(
            "qwen",
            "OPENAI_API_KEY",
            env={"OPENAI_BASE_URL": "{url}/v1", "OPENAI_MODEL": "gpt-4.1-mini"},
            files={".qwen/settings.json": json.dumps(QWEN)},
            model="gpt-4.1-mini",
            session=".qwen/projects",
            tools=("get_goal", "structured_output", "update_goal"),
            # As a judge it sees none of its settings, and tries for many minutes.
            slow=40,
        ),
        Agent(
            "copilot",
            "COPILOT_PROVIDER_API_KEY",
            env={
                "COPILOT_OFFLINE": "true",
                "COPILOT_PROVIDER_BASE_URL": "{url}/v1",
                "COPILOT_MODEL": "gpt-4.1-mini",
                "COPILOT_AUTO_UPDATE": "false",
            },
            model="gpt-4.1-mini",
            limited=Limited(3600),
            session=".copilot/session-state",
        ),
        Agent(
            "aider",
            "OPENAI_API_KEY",
            env={"OPENAI_API_BASE": "{url}/v1", "AIDER_MODEL": "openai/gpt-4.1-mini"},
            # The first time it only learns which file this is about.
            fix=(FIX[0], *FIX),
            first=True,
            # It tries for more than a minute, and nothing changes that: it is not let.
            slow=20,
        ),
        Agent(
            "mini",
            "OPENAI_API_KEY",
            env={"OPENAI_API_BASE": "{url}/v1", "MSWEA_MODEL_NAME": "openai/gpt-4.1-mini"},
            model="gpt-4.1-mini",
            judge=None,
            first=True,
            hasty={"MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "1"},
        ),
    )
}


_PROBED: dict[str, bytes] = {}
"""What goalrun knows of the installed programs: it would ask them for their version in every new state folder."""


class Machine(Program):
    """The program on a machine with nothing of the one who runs the tests, and some agents."""

    def env(self) -> dict[str, str]:
        """All variables."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
        base = self.home.parent
        return {
            **kept,
            "PATH": search_path(),
            "HOME": str(base / "home"),
            # codex does not work with a home below it.
            "TMPDIR": str(base / "tmp"),
            "GOALRUN_HOME": str(self.home),
            "XDG_CONFIG_HOME": str(base / "config"),
            "NO_COLOR": "1",
            **self.environment,
        }

    def run(self, *arguments: str, cwd: Path | None = None) -> Done:
        """Run the program to its end."""
        known = self.home / "agents"
        Home(self.home).prepare()
        known.mkdir(0o700, exist_ok=True)
        for name, content in _PROBED.items():
            (known / name).write_bytes(content)
        process = self.spawn(*arguments, cwd=cwd)
        try:
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        _PROBED.update((file.name, file.read_bytes()) for file in known.glob("*.json"))
        return Done(process.returncode, out, err)


def search_path() -> str:
    """Where programs are looked for: where ``.ci/agents`` put them, if it did, and on PATH."""
    installed = os.environ.get("GOALRUN_AGENTS")
    return os.pathsep.join(filter(None, [f"{installed}/bin" if installed else "", os.environ.get("PATH", "")]))


def require(name: str) -> Agent:
    """An agent whose program is there; a test of one that is not is skipped, or fails where it has to be there."""
    if shutil.which(name, path=search_path()) is None:
        reason = f"{name} is neither on PATH nor in $GOALRUN_AGENTS/bin; .ci/agents installs it"
        if name in os.environ.get("GOALRUN_AGENTS_REQUIRED", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return AGENTS[name]


def machine(base: Path, project: Path, **agents: ModelServer) -> Machine:
    """The program on a machine where agents are set up, each with a model server of its own."""
    for folder in ("home", "tmp"):
        (base / folder).mkdir(exist_ok=True)
    environment: dict[str, str] = {}
    for name, server in agents.items():
        agent = require(name)
        for path, text in agent.files.items():
            write(base / "home", {path: _filled(text, server, base)})
        environment |= {key: _filled(value, server, base) for key, value in agent.env.items()} | {agent.key: KEY}
        preset = preset_agents()[name]
        if agent.judge:
            words = [_filled(word, server, base) for word in agent.judge]
            configure(base, name, judge=[*preset.judge[:-1], *words, preset.judge[-1]])
        if agent.hasty:
            configure(base, name, env={**preset.env, **agent.hasty})
    return Machine(base / "state", project, environment)


def configure(base: Path, name: str, **changed: object) -> None:
    """Change what the user's own configuration says of an agent."""
    path = base / "config" / "goalrun" / "config.toml"
    agents = tomllib.loads(path.read_text("utf-8"))["agents"] if path.exists() else {}
    before = agents.get(name) or preset_agents()[name].model_dump(mode="json", exclude_none=True)
    write(base, {str(path.relative_to(base)): tomli_w.dumps({"agents": {**agents, name: {**before, **changed}}})})


def start(program: Program, worker: str, *options: str) -> Done:
    """``goalrun start`` with an agent that fixes the project."""
    return program.run("start", "make tests pass", "-w", worker, "-c", CHECK, "-j", "none", "--json", *options)


def events(program: Program, kind: str) -> list[dict[str, Any]]:
    """What the journal of the only goal has of one kind."""
    lines = program.run("logs", "--json").out.splitlines()
    found = [json.loads(line).get("event", {}) for line in lines]
    return [event for event in found if event.get("kind") == kind]


def _filled(text: str, server: ModelServer, base: Path) -> str:
    return text.replace("{url}", server.url).replace("{home}", str(base / "home"))


def measured(name: str) -> str:
    """One line of the table of agents: what a run that edits, and one that is limited, make goalrun report."""
    agent = AGENTS[name]
    program = shutil.which(name, path=search_path())
    if program is None:
        return f"| {name} | not installed | | | | | |"
    with tempfile.TemporaryDirectory(prefix="agents-") as folder:
        base = Path(folder)
        with ModelServer(agent.fix) as server:
            here = machine(base, shop(base / "project"), **{name: server})
            done = start(here, name).json
            spent = server.usage
        [report] = [event["report"] for event in events(here, "worker_ended")]
        version = probe(Path(program), here.home, here.env()).version
    with tempfile.TemporaryDirectory(prefix="agents-") as folder, ModelServer([agent.limited]) as server:
        here = machine(Path(folder), shop(Path(folder) / "project"), **{name: server})
        state = start(here, name, "--no-wait-quota", "--turn-timeout", f"{agent.slow}s").json["state"]
        [failed] = events(here, "agent_failed")
    wait = (utc_now().fromisoformat(failed["until"]) - utc_now()).total_seconds() if failed["until"] else 0
    used = done["usage"]
    told = f"{used['input_tokens']} + {used['output_tokens']}"
    counted = f"{spent.input} + {spent.output}"
    cost = "unknown" if used["usd"] is None else f"{used['usd']:.6f} USD"
    row = (
        name,
        version,
        f"{done['state']}, turn {done['turns']}",
        told if told == counted else f"{told}; the server counted {counted}",
        cost,
        "reported" if report["session"] else "none",
        f"{state}, {'with' if wait > QUOTA_SECONDS[0] else 'without'} its end",
    )
    return f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.stdout.write(
        "| agent | version | edit | tokens in + out | cost | session | quota |\n|---|---|---|---|---|---|---|\n"
    )
    for each in AGENTS:
        sys.stdout.write(measured(each) + "\n")
        sys.stdout.flush()

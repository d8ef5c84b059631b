"""The judge that asks a model through its provider's API: the real program and client, a scripted model on loopback."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from agents.server import Answer, Broken, Cut, Limited, ModelServer, Refused, Say, Slow, Step

from goalrun.adapters.agents.model import read_model
from goalrun.adapters.agents.said import Said, read_output
from goalrun.adapters.judge import read_reply

pytest.importorskip("pydantic_ai", reason="goalrun[models] is not installed")

YES = {"nonce": "n-1", "achieved": True, "blocked": False, "reason": "all there"}
PROGRAM = ("-P", "-m", "goalrun.adapters.model_judge")
QUOTA = {
    "error": {"message": "You exceeded your current quota", "type": "x", "param": None, "code": "insufficient_quota"}
}
MODELS = ("openai:gpt-5", "openai-chat:gpt-5", "anthropic:claude-sonnet-4-5", "google:gemini-2.5-pro")


class Judged(NamedTuple):
    """What became of one run."""

    told: dict[str, Any]
    said: Said
    exit_code: int


def judge(folder: Path, url: str, *words: str, **env: str) -> Judged:
    """Run the program as goalrun does: a brief on standard input, an empty folder, everything in files."""
    known = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    keys = {
        "OPENAI_API_KEY": "sekret",
        "OPENAI_BASE_URL": f"{url}/v1",
        "ANTHROPIC_API_KEY": "sekret",
        "ANTHROPIC_BASE_URL": url,
        "GOOGLE_API_KEY": "sekret",
        "GOOGLE_GEMINI_BASE_URL": url,
    }
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        status = subprocess.run(
            [sys.executable, *words],
            input=b"Is the goal achieved? The nonce is n-1.",
            stdout=out,
            stderr=err,
            env={**known, **keys, "GOALRUN_NONCE": "n-1", **env},
            cwd=folder,
            check=False,
        ).returncode
    read = read_output(folder / "stdout", folder / "stderr", folder / "report", status)
    assert "sekret" not in read.text + read.errors
    return Judged(json.loads(read.text), read_model(read), status)


def asked(folder: Path, model: str, *script: Step) -> tuple[Judged, ModelServer]:
    with ModelServer(script) as server:
        return judge(folder, server.url, *PROGRAM, model), server


@pytest.mark.parametrize("model", MODELS)
def test_a_verdict_on_every_wire(tmp_path: Path, model: str) -> None:
    judged, server = asked(tmp_path, model, Answer(YES))
    assert judged.exit_code == 0
    assert read_reply(judged.said.text, "n-1").achieved
    assert judged.said.failure is None
    assert judged.said.model == model
    usage = judged.said.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, judged.said.cached) == (
        server.usage.input,
        server.usage.output,
        server.usage.cached,
    )
    (request,) = server.main
    sent = json.dumps(request.body)
    assert "The nonce is n-1." in sent
    assert str(tmp_path) not in sent


@pytest.mark.parametrize(("model", "wait"), [("openai:gpt-5", 7), ("anthropic:claude-sonnet-4-5", 3600)])
def test_a_limit_is_told_at_once_with_its_end(tmp_path: Path, model: str, wait: int) -> None:
    before = datetime.now(UTC).timestamp()  # noqa: TID251 - the program's own clock is the real one
    judged, server = asked(tmp_path, model, Limited(wait))
    after = datetime.now(UTC).timestamp()  # noqa: TID251 - the same
    assert judged.exit_code == 1
    failure = judged.said.failure
    assert failure is not None
    assert failure.kind == "limited"
    assert failure.reset is not None
    assert before + wait <= failure.reset <= after + wait
    assert len(server.main) == 1
    assert judged.said.usage is None


@pytest.mark.parametrize(
    ("model", "step", "kind", "words"),
    [
        ("openai:gpt-5", Limited(None, QUOTA), "limited", "You exceeded your current quota"),
        ("openai-chat:gpt-5", Refused(), "refused", "Incorrect API key"),
        ("anthropic:claude-sonnet-4-5", Refused(), "refused", "invalid x-api-key"),
        ("google:gemini-2.5-pro", Refused(), "refused", "API key not valid"),
        ("openai:gpt-5", Broken(500), "unreachable", "The server had an error"),
        ("anthropic:claude-sonnet-4-5", Broken(529), "unreachable", "529"),
        ("openai:gpt-5", Cut(), "unreachable", "Connection error"),
    ],
)
def test_what_failed(tmp_path: Path, model: str, step: Step, kind: str, words: str) -> None:
    judged, _ = asked(tmp_path, model, step)
    assert judged.exit_code == 1
    failure = judged.said.failure
    assert failure is not None
    assert (failure.kind, failure.reset) == (kind, None)
    assert words in failure.message
    assert judged.said.text == ""


@pytest.mark.parametrize("step", [Say("yes, I think"), Answer({"achieved": "yes"}), Answer({**YES, "nonce": "other"})])
def test_a_model_that_never_gives_the_shape_or_the_nonce(tmp_path: Path, step: Step) -> None:
    judged, server = asked(tmp_path, "openai-chat:gpt-5", step)
    failure = judged.said.failure
    assert failure is not None
    assert (judged.exit_code, failure.kind, judged.said.text) == (1, "failed", "")
    # What it has spent is known all the same.
    assert len(server.main) == 3
    assert judged.said.usage is not None
    assert judged.said.usage.input_tokens == server.usage.input


def test_an_answer_of_another_shape_is_sent_back(tmp_path: Path) -> None:
    judged, server = asked(tmp_path, "anthropic:claude-sonnet-4-5", Say("yes"), Answer(YES))
    assert (judged.exit_code, judged.told["reply"]) == (0, YES)
    assert judged.told["usage"]["input_tokens"] == server.usage.input


def test_nobody_there(tmp_path: Path) -> None:
    with ModelServer([Say("x")]) as server:
        url = server.url
    judged = judge(tmp_path, url, *PROGRAM, "openai:gpt-5")
    assert judged.said.failure is not None
    assert judged.said.failure.kind == "unreachable"


CHANGED = """
import sys
sys.argv[1:] = ["openai:gpt-5"]
{}
from goalrun.adapters import model_judge
{}
sys.exit(model_judge.main())
"""


def test_a_model_that_takes_too_long(tmp_path: Path) -> None:
    with ModelServer([Slow()]) as server:
        judged = judge(tmp_path, server.url, "-P", "-c", CHANGED.format("", "model_judge.TIMEOUT = 0.5"))
    assert judged.said.failure is not None
    assert judged.said.failure.kind == "unreachable"
    assert "no answer in" in judged.said.failure.message


def test_without_the_extra(tmp_path: Path) -> None:
    run = CHANGED.format("sys.modules['pydantic_ai'] = None", "")
    judged = judge(tmp_path, "http://127.0.0.1:9", "-P", "-c", run)
    assert judged.exit_code == 1
    assert judged.said.failure is not None
    assert judged.said.failure.message == "goalrun[models] is not installed: pip install 'goalrun[models]'"


@pytest.mark.parametrize("words", [(), ("gpt-5",), ("test",), ("nosuch:model",), ("openai:gpt-5", "more")])
def test_what_names_no_model(tmp_path: Path, words: tuple[str, ...]) -> None:
    judged = judge(tmp_path, "http://127.0.0.1:9", *PROGRAM, *words)
    assert judged.said.failure is not None
    assert (judged.exit_code, judged.said.failure.kind) == (1, "failed")
    assert "model" in judged.said.failure.message


def test_without_a_key(tmp_path: Path) -> None:
    judged = judge(tmp_path, "http://127.0.0.1:9", *PROGRAM, "openai:gpt-5", OPENAI_API_KEY="")
    assert judged.said.failure is not None
    assert "OPENAI_API_KEY" in judged.said.failure.message


def test_it_loads_little_of_goalrun() -> None:
    code = "import sys, goalrun.adapters.model_judge; print([m for m in sys.modules if m.startswith('goalrun')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == str(
        ["goalrun", "goalrun.adapters", "goalrun.adapters.clock", "goalrun.adapters.model_judge"]
    )

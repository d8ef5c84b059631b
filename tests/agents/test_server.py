"""The scripted model server keeps the providers' shapes, follows its script and counts what it reports."""

# ruff: noqa: S310 - only the server on loopback is asked

import http.client
import json
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest
from agents.server import (
    Answer,
    Broken,
    Cut,
    Edit,
    Limited,
    ModelServer,
    Refused,
    Run,
    Say,
    Slow,
    Step,
)
from agents.wires import Usage

Json = dict[str, Any]
BASH = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
USER = [{"role": "user", "content": "fix it"}]
MESSAGES: Json = {"model": "m", "max_tokens": 9, "messages": USER, "tools": [{"name": "Bash", "input_schema": BASH}]}
CHAT: Json = {
    "model": "m",
    "messages": USER,
    "tools": [{"type": "function", "function": {"name": "bash", "parameters": BASH}}],
}
RESPONSES: Json = {
    "model": "m",
    "input": USER,
    "tools": [{"type": "function", "name": "exec_command", "parameters": {"properties": {"cmd": {"type": "string"}}}}],
}
GEMINI: Json = {
    "contents": [{"role": "user", "parts": [{"text": "fix it"}]}],
    "tools": [{"functionDeclarations": [{"name": "run_shell_command", "parametersJsonSchema": BASH}]}],
}
PATHS = {
    "messages": ("/v1/messages", MESSAGES),
    "chat": ("/v1/chat/completions", CHAT),
    "responses": ("/v1/responses", RESPONSES),
    "gemini": ("/v1beta/models/m:generateContent", GEMINI),
}
WIRES = sorted(PATHS)


def post(server: ModelServer, path: str, body: Json) -> bytes:
    headers = {"content-type": "application/json", "authorization": "Bearer sekret", "x-api-key": "sekret"}
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        data: bytes = answer.read()
        return data


def whole(server: ModelServer, wire: str) -> Json:
    data: Json = json.loads(post(server, *PATHS[wire]))
    return data


def streamed(server: ModelServer, wire: str, **more: object) -> list[Json]:
    path, body = PATHS[wire]
    path = path.replace(":generateContent", ":streamGenerateContent?alt=sse&key=sekret")
    data = post(server, path, {**body, "stream": True, "stream_options": {"include_usage": True}, **more}).decode()
    lines = [line.removeprefix("data: ") for line in data.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def refusal(server: ModelServer, wire: str) -> tuple[int, Json, str | None]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        whole(server, wire)
    with caught.value as error:
        return error.code, json.loads(error.read()), error.headers["retry-after"]


def reported(wire: str, data: Json) -> Usage:
    """The usage in an answer that is not streamed, as the provider's documents define its fields."""
    match wire:
        case "messages":
            read, written = data["usage"]["cache_read_input_tokens"], data["usage"]["cache_creation_input_tokens"]
            total = data["usage"]["input_tokens"] + read + written
            return Usage(total, read, written, data["usage"]["output_tokens"])
        case "chat":
            used = data["usage"]
            cached = used["prompt_tokens_details"]["cached_tokens"]
            return Usage(used["prompt_tokens"], cached, 0, used["completion_tokens"])
        case "responses":
            used = data["usage"]
            cached = used["input_tokens_details"]["cached_tokens"]
            return Usage(used["input_tokens"], cached, 0, used["output_tokens"])
        case _:
            used = data["usageMetadata"]
            return Usage(used["promptTokenCount"], used["cachedContentTokenCount"], 0, used["candidatesTokenCount"])


def text(wire: str, data: Json) -> str:
    match wire:
        case "messages":
            found = data["content"][0]["text"]
        case "chat":
            found = data["choices"][0]["message"]["content"]
        case "responses":
            found = data["output"][0]["content"][0]["text"]
        case _:
            found = "".join(part["text"] for part in data["candidates"][0]["content"]["parts"])
    return str(found)


def streamed_text(wire: str, events: list[Json]) -> str:
    match wire:
        case "messages":
            parts = [each["delta"]["text"] for each in events if each["type"] == "content_block_delta"]
        case "chat":
            parts = [choice["delta"].get("content", "") for each in events for choice in each["choices"]]
        case "responses":
            parts = [each["delta"] for each in events if each["type"] == "response.output_text.delta"]
        case _:
            parts = [part["text"] for each in events for part in each["candidates"][0]["content"]["parts"]]
    return "".join(parts)


def called(wire: str, data: Json) -> tuple[str, Json]:
    match wire:
        case "messages":
            return data["content"][0]["name"], data["content"][0]["input"]
        case "chat":
            function = data["choices"][0]["message"]["tool_calls"][0]["function"]
            return function["name"], json.loads(function["arguments"])
        case "responses":
            return data["output"][0]["name"], json.loads(data["output"][0]["arguments"])
        case _:
            call = data["candidates"][0]["content"]["parts"][0]["functionCall"]
            return call["name"], call["args"]


@pytest.mark.parametrize("wire", WIRES)
def test_counts_what_it_reports(wire: str) -> None:
    with ModelServer([Say("first"), Say("second")]) as server:
        answers = [whole(server, wire) for _ in range(3)]
        assert [text(wire, answer) for answer in answers] == ["first", "second", "second"]
        used = [reported(wire, answer) for answer in answers]
        assert [request.usage for request in server.main] == used
        assert server.usage == used[0] + used[1] + used[2]
        assert len(set(used)) == 3


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_brings_the_whole_text_and_the_same_usage(wire: str) -> None:
    with ModelServer([Say("all of it")]) as server:
        events = streamed(server, wire)
        assert streamed_text(wire, events) == "all of it"
        match wire:
            case "messages":
                last = {**events[0]["message"]["usage"], **events[-2]["usage"]}
                assert reported(wire, {"usage": last}) == server.usage
            case "responses":
                assert reported(wire, events[-1]["response"]) == server.usage
            case _:
                assert reported(wire, events[-1]) == server.usage


def test_a_chat_stream_without_usage_reports_none() -> None:
    with ModelServer([Say("hello")]) as server:
        assert all("usage" not in event for event in streamed(server, "chat", stream_options=None))
        assert server.usage == Usage()


@pytest.mark.parametrize(
    ("wire", "tool"), [(w, {"responses": "exec_command", "messages": "Bash"}.get(w)) for w in WIRES]
)
def test_runs_a_command_with_the_tool_that_the_agent_declares(wire: str, tool: str | None) -> None:
    with ModelServer([Run("echo hi")]) as server:
        name, arguments = called(wire, whole(server, wire))
    assert name == (tool or {"chat": "bash", "gemini": "run_shell_command"}[wire])
    assert arguments == {"cmd" if wire == "responses" else "command": "echo hi"}


def test_a_streamed_call_has_the_same_arguments() -> None:
    with ModelServer([Run("echo hi")]) as server:
        messages = [
            e["delta"]["partial_json"]
            for e in streamed(server, "messages")
            if e["type"].endswith("_delta") and "partial_json" in e["delta"]
        ]
        deltas = [choice["delta"] for event in streamed(server, "chat") for choice in event["choices"]]
        chat = [call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", [])]
    assert json.loads("".join(messages)) == json.loads("".join(chat)) == {"command": "echo hi"}


def test_required_arguments_beside_the_command_get_plain_values() -> None:
    more = {"description": {"type": "string"}, "wait": {"type": "integer"}, "background": {"type": "boolean"}}
    schema = {"properties": {"command": {"type": "array"}, **more}, "required": ["command", *more]}
    body = {**RESPONSES, "tools": [{"type": "function", "name": "shell", "parameters": schema}]}
    with ModelServer([Run("ls")]) as server:
        _, arguments = called("responses", json.loads(post(server, "/v1/responses", body)))
    expected = {"command": ["bash", "-lc", "ls"], "description": "run a command", "wait": 60_000, "background": False}
    assert arguments == expected


def test_an_agent_without_a_shell_is_told_so() -> None:
    with ModelServer([Run("ls")]) as server:
        body = {**CHAT, "tools": []}
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, "/v1/chat/completions", body)
        with caught.value as error:
            assert "wants a shell" in error.read().decode()
        assert server.usage == Usage()


@pytest.mark.parametrize(
    ("step", "prompt", "expected"),
    [
        (Edit("a.py", "x\n", "y\n"), "whole files please", "a.py\n```\ny\n```\n"),
        (
            Edit("a.py", "x\n", "y\n"),
            "use *SEARCH/REPLACE* blocks",
            "a.py\n```\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE\n```\n",
        ),
        (Run("ls"), "```mswea_bash_command\nls\n```", "Next command:\n\n```mswea_bash_command\nls\n```\n"),
    ],
)
def test_agents_without_tools_get_text(step: Step, prompt: str, expected: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    with ModelServer([step]) as server:
        assert text("chat", json.loads(post(server, "/v1/chat/completions", body))) == expected


def test_an_edit_is_a_command_for_agents_with_a_shell() -> None:
    with ModelServer([Edit("a.py", "x\n", "it's\n")]) as server:
        _, arguments = called("messages", whole(server, "messages"))
    assert arguments == {"command": "printf %s 'it'\"'\"'s\n' > a.py"}


def test_structured_answers_use_the_tool_for_them() -> None:
    body = {**MESSAGES, "tools": [{"name": "StructuredOutput", "input_schema": {}}]}
    with ModelServer([Answer({"met": True})]) as server:
        assert called("messages", json.loads(post(server, "/v1/messages", body))) == ("StructuredOutput", {"met": True})
        assert json.loads(text("chat", whole(server, "chat"))) == {"met": True}


@pytest.mark.parametrize("wire", WIRES)
def test_failures_have_the_providers_shapes(wire: str) -> None:
    shapes = {
        "messages": lambda body: body["error"]["type"],
        "chat": lambda body: body["error"]["code"],
        "responses": lambda body: body["error"]["code"],
        "gemini": lambda body: body["error"]["status"],
    }
    words = {
        "messages": ["rate_limit_error", "authentication_error", "api_error"],
        "chat": ["rate_limit_exceeded", "invalid_api_key", None],
        "responses": ["rate_limit_exceeded", "invalid_api_key", None],
        "gemini": ["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "INTERNAL"],
    }
    with ModelServer([Limited(7), Refused(), Broken(503), Say("ok")]) as server:
        found = [refusal(server, wire) for _ in range(3)]
        assert [status for status, _, _ in found] == [429, 400 if wire == "gemini" else 401, 503]
        assert [shapes[wire](body) for _, body, _ in found] == words[wire]
        assert [wait for _, _, wait in found] == ["7", None, None]
        assert text(wire, whole(server, wire)) == "ok"
        assert [request.status for request in server.main] == [found[0][0], found[1][0], 503, 200]


def test_a_limit_can_have_a_body_and_headers_of_its_own() -> None:
    body = {"error": {"type": "usage_limit_reached", "resets_in_seconds": 60}}
    with ModelServer([Limited(None, body, {"x-codex-plan": "plus"})]) as server:
        assert refusal(server, "responses") == (429, body, None)


@pytest.mark.parametrize("wire", WIRES)
def test_a_cut_answer_ends_in_the_middle(wire: str) -> None:
    with ModelServer([Cut(), Cut()]) as server:
        with pytest.raises(http.client.IncompleteRead):
            streamed(server, wire)
        with pytest.raises(http.client.IncompleteRead):
            whole(server, wire)
        # Anthropic's streams tell their input tokens first.
        assert (server.usage.input > 0, server.usage.output) == (wire == "messages", 0)


@pytest.mark.parametrize("wire", WIRES)
def test_a_slow_answer_waits_for_its_gate(wire: str) -> None:
    slow = Slow("first second")
    found: list[str] = []
    with ModelServer([slow]) as server:
        client = threading.Thread(target=lambda: found.append(streamed_text(wire, streamed(server, wire))))
        client.start()
        assert slow.begun.wait(30)
        assert not found
        slow.gate.set()
        client.join(30)
    assert found == ["first second"]


def test_an_answer_that_waits_when_the_server_closes_is_cut() -> None:
    slow = Slow()
    server = ModelServer([slow])
    failures: list[type[Exception]] = []

    def ask() -> None:
        try:
            streamed(server, "chat")
        except http.client.IncompleteRead as failure:
            failures.append(type(failure))

    client = threading.Thread(target=ask)
    with server:
        client.start()
        assert slow.begun.wait(30)
    client.join(30)
    assert failures == [http.client.IncompleteRead]
    assert server.usage == Usage()


def test_background_requests_take_no_step() -> None:
    title = {"model": "m", "messages": [{"role": "system", "content": "You are a title generator."}, *USER]}
    with ModelServer([Say("first"), Say("second")]) as server:
        post(server, "/v1/chat/completions", title)
        post(server, "/v1/messages", {"model": "m", "max_tokens": 1, "messages": USER})
        assert text("chat", whole(server, "chat")) == "first"
        assert server.background_usage.input > 0
        assert server.usage == server.main[0].usage
        assert [request.kind for request in server.requests] == ["background", "background", "main"]


def test_other_requests_are_answered_and_take_no_step() -> None:
    with ModelServer([Say("first")]) as server:
        counted = json.loads(post(server, "/v1/messages/count_tokens", MESSAGES))
        assert counted["input_tokens"] > 0
        assert json.loads(post(server, "/v1beta/models/m:countTokens", GEMINI))["totalTokens"] > 0
        with urllib.request.urlopen(server.url + "/v1/models") as answer:
            assert json.load(answer)["data"][0]["id"] == "scripted"
        with urllib.request.urlopen(urllib.request.Request(server.url, method="HEAD")) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, "/telemetry", {})
        caught.value.close()
        assert server.usage + server.background_usage == Usage()
        assert text("chat", whole(server, "chat")) == "first"


def test_no_web_sockets_are_offered() -> None:
    with ModelServer([Say("first")]) as server, pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(server.url + "/v1/responses", headers={"upgrade": "websocket"}))
    with caught.value as error:
        assert error.code == 426


def test_no_secret_is_kept() -> None:
    with ModelServer([Say("first")]) as server:
        whole(server, "messages")
        streamed(server, "gemini")
        assert server.requests[0].headers["content-type"] == "application/json"
        assert "sekret" not in repr(server.requests)


def test_waits_for_requests() -> None:
    with ModelServer([Say("first")]) as server:
        client = threading.Thread(target=whole, args=(server, "chat"))
        client.start()
        server.wait_for(1, 30)
        client.join(30)
        with pytest.raises(AssertionError, match="has not sent 2 requests"):
            server.wait_for(2, 0)


def test_a_runaway_agent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.server.MOST_REQUESTS", 2)
    with ModelServer([Say("again")]) as server:
        whole(server, "chat")
        whole(server, "chat")
        assert refusal(server, "chat")[0] == 400
        assert len(server.requests) == 2

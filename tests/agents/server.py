"""A model on loopback that follows a script, and counts the usage that it reports.

It speaks the wires that coding agents use: Anthropic messages, OpenAI chat completions and responses, Gemini, in the
shapes of the providers' public API references. Every request of the main conversation takes the next step of the
script; after the last step, the last one is repeated. Background requests (titles, quota probes) get a harmless text
and take none.
"""

import json
import re
import shlex
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

Json = dict[str, Any]
Wire = Literal["messages", "chat", "responses", "gemini"]
Kind = Literal["main", "background", "other"]

LARGEST_BODY = 32_000_000
MOST_REQUESTS = 2_000
SECRET_HEADERS = frozenset({"authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"})
BACKGROUND = r"title generator|generate a (concise|short|brief)\b.{0,40}\btitle|new conversation topic|memory extract"
SHELLS = ("bash", "exec_command", "shell_command", "shell", "run_shell_command", "local_shell", "execute_command")
STRUCTURED = ("structuredoutput", "structured_output")
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""What mini-swe-agent wants to see as the first line of a command's output, to end."""


# --- The wires: what each provider's answers look like ----------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """Tokens; ``input`` is all input, cached and written to the cache included."""

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input=self.input + other.input,
            cached=self.cached + other.cached,
            written=self.written + other.written,
            output=self.output + other.output,
        )


@dataclass(frozen=True)
class Tool:
    """A tool that an agent declares; ``free`` takes text instead of JSON, ``local`` is OpenAI's own shell."""

    name: str
    schema: Json
    form: Literal["function", "free", "local"] = "function"

    def arguments(self, command: str) -> Json:
        """Arguments that make it run a command: whatever is required beside the command gets a plain value."""
        known = self.schema.get("properties", {})
        name = next((name for name in ("command", "cmd", "script") if name in known), "command")
        needed = {other: _plain(known.get(other, {})) for other in self.schema.get("required", []) if other != name}
        return {name: ["bash", "-lc", command] if known.get(name, {}).get("type") == "array" else command, **needed}


@dataclass(frozen=True)
class Call:
    """A call of a tool."""

    tool: Tool
    arguments: Json


Content = str | Call


@dataclass(frozen=True)
class Reply:
    """An answer on some wire.

    Attributes:
        whole: the body of an answer that is not streamed.
        events: the stream, event by event; ``middle`` is the first one that a cut stream lacks.
        streamed: the usage that the stream reports.
        early: the usage that the stream reports before its middle.
    """

    whole: Json
    events: list[str]
    middle: int
    streamed: Usage
    early: Usage = field(default_factory=Usage)


def _plain(schema: Json) -> object:
    if "enum" in schema:
        return schema["enum"][0]
    return {"boolean": False, "integer": 60_000, "number": 60_000, "array": [], "object": {}}.get(
        str(schema.get("type")), "run a command"
    )


def _declared(wire: Wire, body: Json) -> list[Tool]:
    """The tools of a request."""
    if wire == "gemini":
        found = [each for tool in body.get("tools", []) for each in tool.get("functionDeclarations", [])]
        return [Tool(each["name"], each.get("parametersJsonSchema") or each.get("parameters") or {}) for each in found]
    return [tool for each in body.get("tools") or [] if (tool := _tool(wire, each)) is not None]


def _tool(wire: Wire, each: Json) -> Tool | None:
    match wire, each.get("type"):
        case "messages", _:
            return Tool(each["name"], each.get("input_schema", {}))
        case "chat", "function":
            return Tool(each["function"]["name"], each["function"].get("parameters", {}))
        case "responses", "function":
            return Tool(each["name"], each.get("parameters", {}))
        case "responses", "custom":
            return Tool(each["name"], {}, "free")
        case "responses", "local_shell":
            return Tool("local_shell", {"properties": {"command": {"type": "array"}}}, "local")
        case _:
            return None


def _system(wire: Wire, body: Json) -> str:
    """The system prompt of a request, as JSON text."""
    match wire:
        case "chat":
            found = [each for each in body.get("messages", []) if each.get("role") in {"system", "developer"}]
            return json.dumps(found)
        case "messages":
            return json.dumps(body.get("system", ""))
        case "responses":
            return json.dumps(body.get("instructions", ""))
        case "gemini":
            return json.dumps(body.get("systemInstruction", ""))


def _failure(wire: Wire, status: int, retry_after: int | None = None) -> tuple[int, Json]:
    """A status and a body as the provider words them."""
    if wire == "messages":
        kind = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
        said = {401: "invalid x-api-key", 429: "This request would exceed your account's rate limit."}
        error: Json = {"type": kind, "message": said.get(status, "Internal server error")}
        return status, {"type": "error", "error": error, "request_id": "req_scripted"}
    if wire == "gemini":
        return _gemini_failure(status, retry_after)
    said = {
        401: "Incorrect API key provided: scripted.",
        429: "Rate limit reached for scripted on requests per min (RPM): Limit 3, Used 3, Requested 1.",
    }
    kind = {401: "invalid_request_error", 429: "requests"}.get(status, "server_error")
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    message = said.get(status, "The server had an error while processing your request.")
    return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _gemini_failure(status: int, retry_after: int | None) -> tuple[int, Json]:
    details: list[Json] = []
    if status == 401:
        # This provider answers a bad key with 400.
        status, name, message = 400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."
        info = "type.googleapis.com/google.rpc.ErrorInfo"
        details = [{"@type": info, "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
    elif status == 429:
        name, message = "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan."
        if retry_after is not None:
            details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after}s"}]
    else:
        name, message = "INTERNAL", "An internal error has occurred."
    return status, {"error": {"code": status, "message": message, "status": name, "details": details}}


def _event(data: Json, name: str | None = None) -> str:
    return ("" if name is None else f"event: {name}\n") + f"data: {json.dumps(data)}\n\n"


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _reply(wire: Wire, path: str, body: Json, content: Content, usage: Usage, number: int) -> Reply:
    """An answer to one request, whole and as a stream."""
    model = str(body.get("model", path.rsplit("/", 1)[-1].partition(":")[0]))
    match wire:
        case "messages":
            return _messages(model, content, usage, number)
        case "chat":
            asked = bool((body.get("stream_options") or {}).get("include_usage"))
            return _chat(model, content, usage, number, asked=asked)
        case "responses":
            return _responses(model, content, usage, number)
        case "gemini":
            return _gemini(model, content, usage, number)


def _messages(model: str, content: Content, usage: Usage, number: int) -> Reply:
    called = isinstance(content, Call)
    if isinstance(content, Call):
        block: Json = {"type": "tool_use", "id": f"toolu_{number}", "name": content.tool.name, "input": {}}
        parts = [{"type": "input_json_delta", "partial_json": half} for half in _halves(json.dumps(content.arguments))]
        filled = {**block, "input": content.arguments}
    else:
        block = {"type": "text", "text": ""}
        parts = [{"type": "text_delta", "text": half} for half in _halves(content)]
        filled = {**block, "text": content}
    read = {
        "input_tokens": usage.input - usage.cached - usage.written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.written,
    }
    ended = {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}
    message: Json = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": model}
    begun = {
        **message,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**read, "output_tokens": 0},
    }
    events: list[Json] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": part} for part in parts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage.output}},
        {"type": "message_stop"},
    ]
    whole = {**message, "content": [filled], **ended, "usage": {**read, "output_tokens": usage.output}}
    early = Usage(input=usage.input, cached=usage.cached, written=usage.written)
    return Reply(whole, [_event(each, each["type"]) for each in events], 3, usage, early)


def _chat(model: str, content: Content, usage: Usage, number: int, *, asked: bool) -> Reply:
    message: Json = {"role": "assistant", "content": content}
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    if isinstance(content, Call):
        function = {"name": content.tool.name, "arguments": json.dumps(content.arguments)}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        first, second = _halves(function["arguments"])
        start = {**call, "index": 0, "function": {**function, "arguments": first}}
        deltas += [{"tool_calls": [start]}, {"tool_calls": [{"index": 0, "function": {"arguments": second}}]}]
    else:
        deltas += [{"content": half} for half in _halves(content)]
    finish = "tool_calls" if isinstance(content, Call) else "stop"
    counted = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }
    head: Json = {"id": f"chatcmpl-{number}", "created": 0, "model": model}
    chunk: Json = {**head, "object": "chat.completion.chunk"}
    events = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if asked:
        events.append({**chunk, "choices": [], "usage": counted})
    choice = {"index": 0, "message": message, "finish_reason": finish}
    whole = {**head, "object": "chat.completion", "choices": [choice], "usage": counted}
    stream = [*(_event(each) for each in events), "data: [DONE]\n\n"]
    return Reply(whole, stream, 2, usage if asked else Usage())


def _responses(model: str, content: Content, usage: Usage, number: int) -> Reply:
    item, parts = _item(content, number)
    counted = {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input + usage.output,
    }
    head: Json = {"id": f"resp_{number}", "object": "response", "created_at": 0, "model": model}
    whole = {**head, "status": "completed", "output": [item], "usage": counted}
    started = {**head, "status": "in_progress", "output": []}
    events: list[Json] = [
        {"type": "response.created", "response": started},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}},
        *({**part, "output_index": 0, "item_id": item["id"]} for part in parts),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    numbered = [{**each, "sequence_number": at} for at, each in enumerate(events)]
    return Reply(whole, [_event(each, each["type"]) for each in numbered], 3, usage)


def _item(content: Content, number: int) -> tuple[Json, list[Json]]:
    """An output item, and the events that bring its inside."""
    if isinstance(content, str):
        part = {"type": "output_text", "text": content, "annotations": []}
        item: Json = {"type": "message", "id": f"msg_{number}", "status": "completed", "role": "assistant"}
        halves = _halves(content)
        return {**item, "content": [part]}, [
            {"type": "response.output_text.delta", "content_index": 0, "delta": half} for half in halves
        ]
    head: Json = {"id": f"fc_{number}", "call_id": f"call_{number}", "status": "completed"}
    if content.tool.form == "local":
        return {**head, "type": "local_shell_call", "action": {"type": "exec", **content.arguments, "env": {}}}, []
    arguments = json.dumps(content.arguments)
    return {**head, "type": "function_call", "name": content.tool.name, "arguments": arguments}, [
        {"type": "response.function_call_arguments.delta", "delta": half} for half in _halves(arguments)
    ]


def _gemini(model: str, content: Content, usage: Usage, number: int) -> Reply:
    if isinstance(content, Call):
        parts: list[Json] = [{"functionCall": {"name": content.tool.name, "args": content.arguments}}]
    else:
        parts = [{"text": half} for half in _halves(content)]
    counted = {
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cached,
        "candidatesTokenCount": usage.output,
        "totalTokenCount": usage.input + usage.output,
    }
    head: Json = {"modelVersion": model, "responseId": f"response-{number}"}
    chunks = [{**head, "candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]} for part in parts]
    end = {"index": 0, "content": {"role": "model", "parts": []}, "finishReason": "STOP"}
    whole = {**head, "candidates": [{**end, "content": {"role": "model", "parts": parts}}], "usageMetadata": counted}
    events = [*chunks, {**head, "candidates": [end], "usageMetadata": counted}]
    return Reply(whole, [_event(each) for each in events], 1, usage)


# --- The script -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Ends the agent's turn with a text."""

    text: str


@dataclass(frozen=True)
class Answer:
    """Ends the agent's turn with data: through the tool for structured output if there is one, else as JSON text."""

    data: Json


@dataclass(frozen=True)
class Run:
    """A call of the shell tool that the agent declares; a fenced command for mini-swe-agent without tools."""

    command: str


@dataclass(frozen=True)
class Edit:
    """Rewrites one file, given its whole content before and after; an edit block for agents without tools (aider)."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Limited:
    """429 in the provider's shape; another body (and status) stands for a used-up subscription."""

    retry_after: int | None = 1
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A bad key, in the provider's shape."""


@dataclass(frozen=True)
class Broken:
    """A failure of the provider."""

    status: int = 500


@dataclass(frozen=True)
class Cut:
    """An answer whose connection closes in the middle of a text."""

    text: str = "This answer will not be whole."


@dataclass(frozen=True)
class Slow:
    """A text whose second half waits: ``begun`` tells when the first half is out, ``gate`` lets the rest go."""

    text: str = "This answer takes its time."
    begun: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)


Step = Say | Answer | Run | Edit | Limited | Refused | Broken | Cut | Slow


@dataclass
class Request:
    """A request as it came, without secrets; ``usage`` is what the answer to it reported."""

    path: str
    headers: dict[str, str]
    body: Json
    kind: Kind = "other"
    status: int = 200
    usage: Usage = field(default_factory=Usage)


class ModelServer:
    """The server; a context manager.

    Args:
        script: what the model does, one step per request of the main conversation; the last one is repeated.
        background: a regular expression; a request whose system prompt has it is a background request.
    """

    def __init__(self, script: Sequence[Step], background: str = BACKGROUND) -> None:
        self.requests: list[Request] = []
        self.closing = False
        self._script = tuple(script)
        self._background = re.compile(background, re.IGNORECASE | re.DOTALL)
        self._change = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.closing = True
        for step in self._script:
            if isinstance(step, Slow):
                step.gate.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """Without a path: ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def usage(self) -> Usage:
        """All that was reported to the main conversation."""
        return self._total("main")

    @property
    def background_usage(self) -> Usage:
        """All that was reported to background requests."""
        return self._total("background")

    @property
    def main(self) -> list[Request]:
        """The requests of the main conversation."""
        with self._change:
            return [request for request in self.requests if request.kind == "main"]

    def wait_for(self, count: int, seconds: float = 60) -> None:
        """Wait until the main conversation has sent so many requests."""
        with self._change:
            if not self._change.wait_for(lambda: sum(r.kind == "main" for r in self.requests) >= count, seconds):
                raise AssertionError(f"the agent has not sent {count} requests: {[r.path for r in self.requests]}")

    def take(self, request: Request, wire: Wire | None) -> tuple[Step, int]:
        """Note a request; what to do about it, and its number among all requests."""
        with self._change:
            if len(self.requests) >= MOST_REQUESTS:
                return Broken(400), MOST_REQUESTS
            done = sum(earlier.kind == "main" for earlier in self.requests)
            self.requests.append(request)
            step: Step = Say("ok")
            if wire is not None and self._is_background(wire, request.body):
                request.kind = "background"
            elif wire is not None:
                request.kind, step = "main", self._script[min(done, len(self._script) - 1)]
            self._change.notify_all()
            return step, len(self.requests)

    def _is_background(self, wire: Wire, body: Json) -> bool:
        return body.get("max_tokens") == 1 or self._background.search(_system(wire, body)) is not None

    def _total(self, kind: Kind) -> Usage:
        with self._change:
            return sum((request.usage for request in self.requests if request.kind == kind), Usage())


def _wire(path: str) -> Wire | None:
    """The wire that a path belongs to; None for anything that is no model request."""
    last = path.rsplit("/", 1)[-1]
    if last in {"messages", "responses"}:
        return "messages" if last == "messages" else "responses"
    if path.endswith("/chat/completions"):
        return "chat"
    return "gemini" if last.endswith((":generateContent", ":streamGenerateContent")) else None


def _content(step: Step, wire: Wire, body: Json) -> Content:
    """A step as this agent understands it.

    Raises:
        LookupError: the agent declares no tool that runs commands.
    """
    match step:
        case Answer(data):
            structured = next((tool for tool in _declared(wire, body) if tool.name.lower() in STRUCTURED), None)
            return json.dumps(data) if structured is None else Call(structured, data)
        case Edit():
            return _edit(step, wire, body)
        case Run(command):
            return _run(command, wire, body)
        case Say(text) if SUBMIT in json.dumps(body):
            return _run(f"echo {SUBMIT} && echo {shlex.quote(text)}", wire, body)
        case Say(text) | Cut(text) | Slow(text):
            return text
        case _:
            raise TypeError(f"no content: {step}")


def _edit(step: Edit, wire: Wire, body: Json) -> Content:
    prompt = json.dumps(body)
    if _declared(wire, body) or SUBMIT in prompt:
        return _run(f"printf %s {shlex.quote(step.new)} > {shlex.quote(step.path)}", wire, body)
    if "SEARCH/REPLACE" in prompt:
        return f"{step.path}\n```\n<<<<<<< SEARCH\n{step.old}=======\n{step.new}>>>>>>> REPLACE\n```\n"
    return f"{step.path}\n```\n{step.new}```\n"


def _run(command: str, wire: Wire, body: Json) -> Content:
    shells = {tool.name.lower(): tool for tool in _declared(wire, body)}
    chosen = next((shells[name] for name in SHELLS if name in shells), None)
    if chosen is not None:
        return Call(chosen, chosen.arguments(command))
    fence = re.search(r"```(mswea_bash_command|bash)", json.dumps(body))
    if fence is None:
        raise LookupError(f"the script wants a shell, the agent declares only: {sorted(shells)}")
    return f"Next command:\n\n```{fence[1]}\n{command}\n```\n"


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "scripted-model"
    model: ModelServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
        """Say nothing."""

    def handle(self) -> None:
        """Serve a connection, which an agent that is killed leaves without a word."""
        with suppress(ConnectionError):
            super().handle()

    def do_HEAD(self) -> None:
        self._look()

    def do_GET(self) -> None:
        self._look()

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        data = self.rfile.read(length) if 0 < length <= LARGEST_BODY else b""
        try:
            body = json.loads(data or b"{}")
        except ValueError:
            body = {}
        request = self._request(body if isinstance(body, dict) else {})
        wire = _wire(request.path)
        step, number = self.model.take(request, wire)
        if wire is None:
            counting = request.path.endswith(("/count_tokens", ":countTokens"))
            self._send(request, 200 if counting else 404, {"input_tokens": 100, "totalTokens": 100})
        else:
            self._act(step, wire, request, number)

    def _look(self) -> None:
        request = self._request({})
        self.model.take(request, None)
        # Both providers' lists have these fields.
        model = {"id": "scripted", "object": "model", "type": "model", "display_name": "scripted", "created": 0}
        listed = request.path.endswith("/models")
        # No web sockets: the answer to an upgrade by which codex turns to plain requests.
        status = 426 if "upgrade" in request.headers else 200
        self._send(request, status, {"object": "list", "data": [model], "models": []} if listed else {})

    def _request(self, body: Json) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(
            path=urlsplit(self.path).path,
            headers={name: value for name, value in headers.items() if name not in SECRET_HEADERS},
            body=body,
        )

    def _act(self, step: Step, wire: Wire, request: Request, number: int) -> None:
        match step:
            case Limited(retry_after, body, headers):
                wait = {} if retry_after is None else {"retry-after": str(retry_after)}
                status, shaped = _failure(wire, 429, retry_after)
                self._send(request, status, body or shaped, {**wait, **headers})
            case Refused():
                self._send(request, *_failure(wire, 401))
            case Broken(status):
                self._send(request, *_failure(wire, status))
            case _:
                self._answer(step, wire, request, number)

    def _answer(self, step: Step, wire: Wire, request: Request, number: int) -> None:
        # Numbers differ from request to request, so that a sum over the wrong ones shows.
        written = 7 if wire == "messages" else 0
        usage = Usage(input=100 + number + written, cached=20 + number, written=written, output=5 + number)
        try:
            content = _content(step, wire, request.body)
        except LookupError as problem:
            self._send(request, 400, {"error": {"message": str(problem), "type": "invalid_request_error"}})
            return
        made = _reply(wire, request.path, request.body, content, usage, number)
        streamed = request.body.get("stream") is True or ":stream" in request.path
        if streamed:
            self._stream(step, made, request)
        elif self._stops(step):
            self._cut(json.dumps(made.whole).encode())
        else:
            request.usage = usage
            self._send(request, 200, made.whole)

    def _stops(self, step: Step) -> bool:
        """Whether an answer ends in its middle; waits there if it is a slow one."""
        if isinstance(step, Slow):
            step.begun.set()
            step.gate.wait()
            return self.model.closing
        return isinstance(step, Cut)

    def _send(self, request: Request, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        request.status = status
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, step: Step, made: Reply, request: Request) -> None:
        request.usage = made.early
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for at, event in enumerate(made.events):
            if at == made.middle and self._stops(step):
                self.close_connection = True
                return
            if at == made.middle:
                request.usage = made.streamed
            data = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _cut(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True


def _handler(model: ModelServer) -> type[_Handler]:
    return type("_BoundHandler", (_Handler,), {"model": model})

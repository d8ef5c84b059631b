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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from agents.wires import Call, Content, Json, Reply, Usage, Wire, declared, failure, reply, system, wire_of

Kind = Literal["main", "background", "other"]

LARGEST_BODY = 32_000_000
MOST_REQUESTS = 2_000
SECRET_HEADERS = frozenset({"authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"})
BACKGROUND = r"title generator|generate a (concise|short|brief)\b.{0,40}\btitle|new conversation topic|memory extract"
SHELLS = ("bash", "exec_command", "shell_command", "shell", "run_shell_command", "local_shell", "execute_command")
STRUCTURED = ("structuredoutput", "structured_output")
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""What mini-swe-agent wants to see as the first line of a command's output, to end."""


@dataclass(frozen=True)
class Say:
    """Ends the agent's turn with a text."""

    text: str


@dataclass(frozen=True)
class Answer:
    """Ends the agent's turn with data: through the tool for structured output if there is one, else as JSON text.

    Attributes:
        data: itself, or what makes it from the request, which it gets as JSON text.
    """

    data: Json | Callable[[str], Json]


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
        self._begun = 0
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

    def follow(self, script: Sequence[Step]) -> None:
        """Go on with another script."""
        with self._change:
            self._script, self._begun = tuple(script), sum(each.kind == "main" for each in self.requests)

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
                request.kind, step = "main", self._script[min(done - self._begun, len(self._script) - 1)]
            self._change.notify_all()
            return step, len(self.requests)

    def _is_background(self, wire: Wire, body: Json) -> bool:
        return body.get("max_tokens") == 1 or self._background.search(system(wire, body)) is not None

    def _total(self, kind: Kind) -> Usage:
        with self._change:
            return sum((request.usage for request in self.requests if request.kind == kind), Usage())


def _content(step: Step, wire: Wire, body: Json) -> Content:
    """A step as this agent understands it.

    Raises:
        LookupError: the agent declares no tool that runs commands.
    """
    match step:
        case Answer(made):
            data = made(json.dumps(body)) if callable(made) else made
            structured = next((tool for tool in declared(wire, body) if tool.name.lower() in STRUCTURED), None)
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
    if declared(wire, body) or SUBMIT in prompt:
        return _run(f"printf %s {shlex.quote(step.new)} > {shlex.quote(step.path)}", wire, body)
    if "SEARCH/REPLACE" in prompt:
        return f"{step.path}\n```\n<<<<<<< SEARCH\n{step.old}=======\n{step.new}>>>>>>> REPLACE\n```\n"
    return f"{step.path}\n```\n{step.new}```\n"


def _run(command: str, wire: Wire, body: Json) -> Content:
    shells = {tool.name.lower(): tool for tool in declared(wire, body)}
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
        wire = wire_of(request.path)
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
                status, shaped = failure(wire, 429, retry_after)
                self._send(request, status, body or shaped, {**wait, **headers})
            case Refused():
                self._send(request, *failure(wire, 401))
            case Broken(status):
                self._send(request, *failure(wire, status))
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
        made = reply(wire, request.path, request.body, content, usage, number)
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

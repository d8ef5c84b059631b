"""What the answers of model providers look like, by their public API references: each wire that coding agents speak."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Wire = Literal["messages", "chat", "responses", "gemini"]


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


def declared(wire: Wire, body: Json) -> list[Tool]:
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


def system(wire: Wire, body: Json) -> str:
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


def failure(wire: Wire, status: int, retry_after: int | None = None) -> tuple[int, Json]:
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


def reply(wire: Wire, path: str, body: Json, content: Content, usage: Usage, number: int) -> Reply:
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


def wire_of(path: str) -> Wire | None:
    """The wire that a path belongs to; None for anything that is no model request."""
    last = path.rsplit("/", 1)[-1]
    if last in {"messages", "responses"}:
        return "messages" if last == "messages" else "responses"
    if path.endswith("/chat/completions"):
        return "chat"
    return "gemini" if last.endswith((":generateContent", ":streamGenerateContent")) else None

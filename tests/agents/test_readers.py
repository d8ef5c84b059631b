"""What codex, opencode and pi say, read from recorded runs of the real programs; and from anything else."""

import json
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalrun.adapters.agents.aider import read_aider
from goalrun.adapters.agents.claude import read_qwen
from goalrun.adapters.agents.codex import read_codex
from goalrun.adapters.agents.model import read_model
from goalrun.adapters.agents.opencode import read_opencode
from goalrun.adapters.agents.pi import read_pi
from goalrun.adapters.agents.said import Failure, Output, Said, objects, read_output
from goalrun.core.model import NOTHING_SPENT

STREAMS = Path(__file__).parent / "streams"
PRESETS = Path(__file__).parents[2] / "config" / "agents"
READERS: Mapping[str, Callable[[Output], Said]] = {
    "codex": read_codex,
    "opencode": read_opencode,
    "pi": read_pi,
    "model": read_model,
}
KINDS = {
    "codex": {
        "broken": "unreachable",
        "cut": "unreachable",
        "judge-notools": "failed",
        "killed": "failed",
        "limited": "limited",
        "limited-default": "limited",
        "limited-long": "limited",
        "limited-noretry": "limited",
        "quota": "limited",
        "refused": "refused",
        "unknown-session": "session",
        "usage-limit": "limited",
    },
    "opencode": {
        "broken": "unreachable",
        "cut": "unreachable",
        "denied": "failed",
        "denied-ask": "failed",
        "killed": "failed",
        "limited": "limited",
        "limited-long": "failed",
        "refused": "refused",
        "unknown-session": "session",
    },
    "pi": {
        "broken": "unreachable",
        "cut": "unreachable",
        "killed": "failed",
        "limited": "limited",
        "limited-long": "limited",
        "limited-noretry": "limited",
        "refused": "refused",
        "unknown-session": "session",
        "unreachable": "unreachable",
    },
}
"""What failed, of the recorded runs; in all others nothing did."""
BEFORE = {("codex", "resume"): "edit", ("codex", "killed-resumed"): "killed"}
"""Runs whose usage holds that of an earlier one."""


def cases(agent: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STREAMS / agent / "index.json").read_text())["cases"]
    return found


EVERY = [(agent, case) for agent in KINDS for case in sorted(cases(agent))]


def recorded(agent: str, case: str) -> Output:
    folder = STREAMS / agent
    status = cases(agent)[case]["exit"]
    return read_output(folder / f"{case}.jsonl", folder / f"{case}.stderr", folder / "none", status)


def output(*events: Mapping[str, Any], errors: str = "", exit_code: int = 0, whole: bool = True) -> Output:
    return Output(events, "", errors, exit_code, whole)


@pytest.mark.parametrize(("agent", "case"), EVERY)
def test_what_failed(agent: str, case: str) -> None:
    failure = READERS[agent](recorded(agent, case)).failure
    assert (failure.kind if failure else None) == KINDS[agent].get(case)
    if failure is not None:
        assert failure.message
        assert len(failure.message) <= 500
        assert "\n" not in failure.message


@pytest.mark.parametrize(("agent", "case"), EVERY)
def test_usage_is_what_the_server_counted(agent: str, case: str) -> None:
    """Or unknown: after a failure, and after a kill; a request that was not even taken has cost nothing."""
    said = READERS[agent](recorded(agent, case))
    failed = case in KINDS[agent] and case != "denied-ask"
    if failed:
        unpaid = KINDS[agent][case] in {"limited", "refused"}
        assert said.usage == (NOTHING_SPENT if unpaid else None)
        assert not unpaid or not any(cases(agent)[case]["usage"].values())
        return
    counted = [cases(agent)[each]["usage"] for each in (case, BEFORE.get((agent, case), "")) if each]
    assert said.usage is not None
    assert said.usage.input_tokens == sum(each["input"] for each in counted)
    assert said.usage.output_tokens == sum(each["output"] for each in counted)
    assert said.cached == sum(each["cached"] for each in counted)
    assert said.cumulative == (agent == "codex")


def test_what_was_spent_before_a_limit_is_not_nothing() -> None:
    limit = "exceeded retry limit, last status: 429 Too Many Requests"
    run = {"type": "item.completed", "item": {"type": "command_execution"}}
    failed = {"type": "turn.failed", "error": {"message": limit}}
    assert read_codex(output(run, failed, exit_code=1)).usage is None
    assert read_codex(output(failed, exit_code=1)).usage == NOTHING_SPENT
    assert read_codex(output(failed, exit_code=1, whole=False)).usage is None
    refused = {"type": "error", "error": {"name": "APIError", "data": {"statusCode": 401, "message": "no"}}}
    step = {"type": "step_finish", "part": {"tokens": {"input": 5, "output": 1, "cache": {}}, "cost": 0.5}}
    assert read_opencode(output(refused, exit_code=1)).usage == NOTHING_SPENT
    spent = read_opencode(output(step, refused, exit_code=1)).usage
    assert spent is not None
    assert spent.total_tokens == 6


def test_qwen_that_was_ended_while_it_waited_for_a_limit() -> None:
    errors = "Falling back.\nRetrying in 60s (attempt 1/10): [API Error: 429 Slow down.]\nRetrying provider attempt.\n"
    said = read_qwen(output(errors=errors, exit_code=-9))
    assert said.failure == Failure("limited", "[API Error: 429 Slow down.]")


def test_the_cost_that_aider_prints_is_not_part_of_the_next_answer() -> None:
    printed = "Repo-map: none\n\nfirst\n\nTokens: 101 sent, 6 received. Cost: $0.1 message, $0.1 session.\n\nsecond\n\n"
    text = printed + "Tokens: 1.0k sent, 6 received. Cost: $0.1 message, $0.2 session.\n"
    assert read_aider(output()._replace(text=text)).text == "second"


@pytest.mark.parametrize("agent", sorted(KINDS))
def test_the_final_text_and_the_session(agent: str) -> None:
    first, again = (READERS[agent](recorded(agent, case)) for case in ("edit", "resume"))
    assert (first.text, again.text) == ("done", "still done")
    assert first.session
    assert first.session == again.session
    assert json.loads(READERS[agent](recorded(agent, "judge")).text) == {"met": True, "reason": "ok"}


def test_opencode_ends_with_the_texts_after_its_last_tool() -> None:
    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "part": {"text": words}}

    said = read_opencode(output(text("I will look"), {"type": "tool_use", "part": {}}, text("it"), text("is done")))
    assert said.text == "it\nis done"


def test_usd_is_the_agents_own_or_unknown() -> None:
    def usd(agent: str, case: str) -> float | None:
        usage = READERS[agent](recorded(agent, case)).usage
        assert usage is not None
        return usage.usd

    assert usd("opencode", "edit-priced") == pytest.approx(0.0007185)
    # A model without a price costs 0 there.
    assert usd("opencode", "edit") is None
    assert usd("pi", "edit") == pytest.approx(0.0006879)
    assert usd("codex", "edit") is None


def test_denied_tools_and_the_model() -> None:
    assert read_opencode(recorded("opencode", "denied-ask")).denials == ("bash",)
    assert read_pi(recorded("pi", "edit")).model == "scripted"


def test_codex_tells_the_end_of_a_limit_in_local_time() -> None:
    failure = read_codex(recorded("codex", "usage-limit")).failure
    assert failure is not None
    assert failure.reset == time.mktime((2033, 5, 18, 3, 33, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("You\u2019ve hit your usage limit. Try again at 2:57 PM.", "limited"),
        ("You've hit your usage limit, or try again at Feb 31st, 2027 3:33 AM.", "limited"),
        ("unexpected status 403 Forbidden: no", "refused"),
        ("unexpected status 502 Bad Gateway: no", "unreachable"),
        ("unexpected status 400 Bad Request: the words last status: 429 mean nothing here", "failed"),
        ("the model wrote of a rate limit and of 429", "failed"),
    ],
)
def test_codex_is_read_by_how_its_own_messages_begin(message: str, kind: str) -> None:
    failure = read_codex(output({"type": "turn.failed", "error": {"message": message}}, exit_code=1)).failure
    assert failure is not None
    assert (failure.kind, failure.reset) == (kind, None)


@pytest.mark.parametrize(
    ("retry", "kind"),
    [
        ("Reconnecting... waiting for network (Connection failed: error sending request)", "unreachable"),
        ("Reconnecting... 1/5 (exceeded retry limit, last status: 429 Too Many Requests)", "limited"),
    ],
)
def test_codex_that_was_ended_while_it_waited(retry: str, kind: str) -> None:
    waiting = {"type": "error", "message": retry}
    failure = read_codex(output(waiting, exit_code=-9)).failure
    assert failure is not None
    assert failure.kind == kind
    # It went on after that: what it was doing then is not known.
    worked = {"type": "item.completed", "item": {"type": "agent_message", "text": "hello"}}
    failure = read_codex(output(waiting, worked, exit_code=-9)).failure
    assert failure is not None
    assert failure.kind == "failed"


def refusal(wait: str) -> Output:
    data = {"message": "slow down", "statusCode": 429, "responseHeaders": {"retry-after": wait}}
    return output({"type": "error", "timestamp": 1_000_000, "error": {"name": "APIError", "data": data}}, exit_code=1)


@pytest.mark.parametrize(
    ("wait", "reset"),
    [("60", 1060.0), ("Thu, 01 Jan 1970 00:20:00 GMT", 1200.0), ("soon", None), ("", None), ("9" * 5000, None)],
)
def test_opencode_tells_the_end_of_a_limit(wait: str, reset: float | None) -> None:
    assert read_opencode(refusal(wait)).failure == Failure("limited", "slow down", reset)


@pytest.mark.parametrize(
    ("name", "kind"), [("ProviderAuthError", "refused"), ("APIError", "unreachable"), ("ContextOverflow", "failed")]
)
def test_opencode_without_a_status(name: str, kind: str) -> None:
    said = read_opencode(output({"type": "error", "error": {"name": name, "data": {}}}, exit_code=1))
    assert said.failure is not None
    assert (said.failure.kind, said.failure.message) == (kind, name)


def answer(**fields: object) -> dict[str, Any]:
    return {"type": "message_end", "message": {"role": "assistant", "content": [], **fields}}


@pytest.mark.parametrize(
    ("error", "kind", "reset"),
    [
        ("429 Rate limit reached", "limited", None),
        ("mock API error (429): {}", "limited", None),
        ('401 {"type":"error"}', "refused", None),
        ("terminated", "unreachable", None),
        ("400: the model wrote of a 429", "failed", None),
        ('Codex error: {"error":{"type":"usage_limit_reached","resets_at":2000000000}}', "limited", 2e9),
        ('Codex error: {"error":{},"status_code":503}', "unreachable", None),
        ("Codex error: [", "failed", None),
    ],
)
def test_pi_is_read_by_how_its_error_begins(error: str, kind: str, reset: float | None) -> None:
    said = read_pi(output(answer(stopReason="error", errorMessage=error), {"type": "agent_end"}))
    assert said.failure is not None
    assert (said.failure.kind, said.failure.reset) == (kind, reset)


def test_pi_without_a_key_has_refused_credentials() -> None:
    failure = read_pi(output({"type": "session"}, errors="No API key found for anthropic.\n", exit_code=1)).failure
    assert failure == Failure("refused", "No API key found for anthropic.")


def test_a_sum_over_events_that_were_left_out_is_unknown() -> None:
    for agent in ("opencode", "pi"):
        said = READERS[agent](recorded(agent, "edit")._replace(whole=False))
        assert (said.usage, said.text) == (None, "done")
    codex = read_codex(recorded("codex", "edit")._replace(whole=False)).usage
    assert codex is not None
    assert codex.total_tokens == 216


def test_the_report_of_pi_stands_in_for_what_was_left_out() -> None:
    whole = recorded("pi", "edit")
    report = tuple(event for event in whole.events if event["type"] in {"message_end", "agent_end"})
    cut = whole._replace(events=whole.events[:3], whole=False, report=report)
    assert read_pi(cut) == read_pi(whole)
    # It may be cut short itself; and what the program prints comes before what its tools could write, too.
    assert read_pi(cut._replace(report=report[:-1])).usage is None
    assert read_pi(whole._replace(report=(answer(usage={"input": 1, "output": 1}),))) == read_pi(whole)


def test_one_step_without_a_price_makes_the_cost_unknown() -> None:
    steps = [
        {"type": "step_finish", "part": {"reason": "stop", "cost": cost, "tokens": {"input": 5, "output": 2}}}
        for cost in (0.5, 0)
    ]
    usage = read_opencode(output(*steps)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.usd) == (10, 4, None)


# --- Anything ---------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    sorted(
        {
            *("turn.completed", "turn.failed", "error", "item.completed", "agent_message", "thread.started"),
            *("step_finish", "tool_use", "text", "message_end", "agent_end", "session", "assistant", "stop", "result"),
            *(
                "failure",
                "limited",
                "Reconnecting... 1/1 (x)",
                "unexpected status 429",
                "429: no",
                "APIError",
                "9" * 400,
            ),
            *("Codex error: {", "Sun, 99 Foo 99999 99:99:99 -9999", "\ud800", "ProviderAuthError", "bash"),
        }
    )
)
KEYS = st.sampled_from(
    sorted(
        {
            *(
                "type",
                "item",
                "text",
                "usage",
                "input_tokens",
                "output_tokens",
                "cached_input_tokens",
                "error",
                "message",
            ),
            *("part", "tokens", "cache", "read", "write", "input", "output", "cost", "reason", "state", "tool", "role"),
            *("data", "statusCode", "responseHeaders", "retry-after", "timestamp", "sessionID", "thread_id", "content"),
            *("stopReason", "errorMessage", "model", "cacheRead", "total", "reply", "kind", "reset", "cached", "id"),
        }
    )
)
NUMBERS = st.one_of(st.integers(), st.just(10**400), st.floats(), st.sampled_from([-1, 0, 1, 1 << 53, True]))
ANYTHING = st.recursive(
    st.one_of(st.none(), NUMBERS, WORDS, st.text(max_size=8)),
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(st.one_of(KEYS, st.text(max_size=3)), below)),
    max_leaves=12,
)
OBJECTS = st.lists(st.dictionaries(KEYS, st.one_of(WORDS, ANYTHING), max_size=8), max_size=5).map(tuple)
KNOWN_KINDS = get_args(get_type_hints(Failure)["kind"])


def check(said: Said) -> None:
    for text in (said.text, said.session, said.model):
        assert isinstance(text, str)
    assert said.cached >= 0
    if said.failure is not None:
        assert said.failure.kind in KNOWN_KINDS
        assert 0 < len(said.failure.message) <= 500
    if said.usage is not None:
        counted = [said.usage.input_tokens, said.usage.output_tokens, said.usage.usd]
        assert all(number is None or number >= 0 for number in counted)


@pytest.mark.parametrize("agent", sorted(READERS))
@given(events=OBJECTS, report=OBJECTS, errors=st.text(max_size=40), status=st.integers(-64, 255), whole=st.booleans())
def test_nothing_in_an_output_makes_a_reader_fail(
    agent: str, events: tuple[Any, ...], report: tuple[Any, ...], errors: str, status: int, *, whole: bool
) -> None:
    check(READERS[agent](Output(events, "", errors, status, whole, report)))


@pytest.mark.parametrize("agent", sorted(KINDS))
@given(data=st.data())
def test_a_stream_that_is_cut_or_damaged_anywhere(agent: str, data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(sorted(cases(agent))))
    raw = (STREAMS / agent / f"{case}.jsonl").read_bytes()
    start, length = data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, 200))
    damaged = raw[:start] + data.draw(st.binary(max_size=20)) + raw[start + length :]
    kept = damaged[: data.draw(st.integers(0, len(damaged)))]
    check(READERS[agent](Output(tuple(objects(kept)), "", "", 0, whole=True)))


# --- The presets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["claude", "codex", "opencode", "pi"])
def test_a_preset_names_its_reader_and_goes_on_in_a_session(agent: str) -> None:
    preset = tomllib.loads((PRESETS / f"{agent}.toml").read_text())
    assert preset["reads"] == agent
    assert preset["least"]
    assert "session" not in preset  # each turn begins a new one, unless the user says otherwise
    assert "{session}" in preset["resume"]
    assert "{prompt}" not in (*preset["command"], *preset["resume"], *preset["judge"])  # it is on standard input
    assert "IS_SANDBOX" not in preset.get("env", {})

"""Readers of claude, qwen, amp, cursor-agent, gemini, copilot, aider, mini, goose: recorded streams, then garbage.

What is expected of usage is what the scripted provider counted, where a stream was recorded (``index.json``).
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goalrun.adapters.agents import READERS
from goalrun.adapters.agents.said import Failure, Output, Said, read_output

STREAMS = Path(__file__).parent / "streams"
REPORTS = {"copilot": ".usage.json", "aider": ".analytics.jsonl", "mini": ".traj.json"}
MINE = ("claude", "qwen", "amp", "cursor", "gemini", "copilot", "aider", "mini", "goose")


def output(agent: str, case: str) -> Output:
    """A recorded run, as it would have been read."""
    folder = STREAMS / agent
    stem = folder / case
    known = json.loads((STREAMS / agent.partition("/")[0] / "index.json").read_text())["cases"]
    stdout = next(file for end in (".jsonl", ".txt") if (file := stem.with_name(stem.name + end)).is_file())
    report = stem.with_name(stem.name + REPORTS.get(agent, ".none"))
    exit_code = 0 if "/" in agent else known[case]["exit"]
    return read_output(stdout, stem.with_name(stem.name + ".stderr"), report, exit_code)


def said(agent: str, case: str) -> Said:
    return READERS[agent.partition("/")[0]](output(agent, case))


def spent(what: Said) -> tuple[int | None, int | None, int]:
    assert what.usage is not None
    return what.usage.input_tokens, what.usage.output_tokens, what.cached


def cases(agent: str) -> Iterator[tuple[str, str]]:
    known = json.loads((STREAMS / agent / "index.json").read_text())["cases"]
    # What was recorded with -o json is another shape, which no preset asks for.
    lines = [case for case in known if any((STREAMS / agent / f"{case}{end}").is_file() for end in (".jsonl", ".txt"))]
    yield from ((agent, case) for case in lines)


ALL = [each for agent in MINE for each in cases(agent)]


@pytest.mark.parametrize(("agent", "case"), ALL)
def test_a_run_is_a_success_only_where_the_agent_says_so(agent: str, case: str) -> None:
    good = ("edit", "resume", "resume-after-kill", "denied", "cut-once", "judge", "killed-resumed", "text-only")
    # Two runs of aider wrote into one log, which its preset avoids.
    if (agent, case) == ("aider", "resume-after-kill"):
        return
    succeeded = case.startswith(good) and case not in {"resume-unknown", "judge-no-schema-call"}
    assert (said(agent, case).failure is None) == succeeded


FAILED = [
    ("claude", "limited", "limited", "API Error: Request rejected (429)"),
    ("claude", "limited-long", "limited", "API Error: Request rejected (429)"),
    ("claude", "refused", "refused", "Invalid API key"),
    ("claude", "broken", "unreachable", "API Error: 500"),
    ("claude", "overloaded", "unreachable", "API Error: 529"),
    ("claude", "cut", "unreachable", "API Error: Connection to the API was lost"),
    ("claude", "unreachable", "unreachable", "API Error: Connection refused"),
    ("claude", "unknown-session", "session", "No conversation found with session ID"),
    ("claude", "budget", "failed", "Reached maximum budget"),
    ("claude", "max-turns", "failed", "Reached maximum number of turns (2)"),
    ("claude", "root-refused", "failed", "--dangerously-skip-permissions cannot be used with root"),
    ("claude", "killed", "failed", "claude ended without a result"),
    ("qwen", "limited", "limited", "[API Error: 429"),
    ("qwen", "refused", "refused", "[API Error: 401"),
    ("qwen", "broken", "unreachable", "[API Error: 500"),
    ("qwen", "cut", "unreachable", "[API Error: terminated"),
    ("qwen", "resume-unknown", "session", "No saved session found"),
    ("qwen", "judge-no-schema-call", "failed", "Model produced plain text"),
    ("qwen/v0.15.10", "limited", "limited", "[API Error: 429"),
    ("qwen/v0.15.10", "refused", "refused", "[API Error: 401"),
    ("qwen/v0.15.10", "refused-with-schema", "refused", "[API Error: 401"),
    ("qwen/v0.15.10", "broken", "unreachable", "[API Error: 500"),
    ("amp", "failed", "failed", "Insufficient credit balance"),
    ("amp", "unreachable", "unreachable", "Error: Couldn't connect to the Amp server"),
    ("cursor", "failed", "failed", "cursor-agent ended without a result"),
    ("gemini", "limited", "limited", "[API Error: Resource has been exhausted"),
    ("gemini", "limited-day", "limited", "[API Error: You have exhausted your daily quota"),
    ("gemini", "refused", "refused", "[API Error: "),
    ("gemini", "refused401", "refused", "[API Error: "),
    ("gemini", "no-auth-setting", "refused", ""),
    ("gemini", "broken", "unreachable", "[API Error: "),
    ("gemini", "cut", "unreachable", "[API Error: terminated]"),
    ("gemini", "resume-unknown", "session", "Error resuming session: "),
    ("gemini", "untrusted", "failed", ""),
    ("copilot", "limited", "limited", "Failed to get response"),
    ("copilot", "limited-long-retry-after", "limited", "429 Rate limit reached"),
    ("copilot", "refused", "refused", "Authentication failed with provider"),
    ("copilot", "broken", "unreachable", "Failed to get response"),
    ("copilot", "cut", "unreachable", "Failed to get response"),
    ("copilot", "resume-unknown", "session", "Error: No session"),
    ("aider", "limited", "limited", "litellm.RateLimitError: "),
    ("aider", "limited-second", "limited", "litellm.RateLimitError: "),
    ("aider", "refused", "refused", "litellm.AuthenticationError: "),
    ("aider", "broken", "unreachable", "litellm.InternalServerError: "),
    ("aider", "cut", "unreachable", "litellm.InternalServerError: "),
    ("aider", "killed", "failed", "aider did not come to an end"),
    ("mini", "limited", "limited", "litellm.RateLimitError: "),
    ("mini", "refused", "refused", "litellm.AuthenticationError: "),
    ("mini", "broken", "unreachable", "litellm.InternalServerError: "),
    ("mini", "cut", "unreachable", "litellm.InternalServerError: "),
    ("goose", "failed", "failed", "Request failed: Rate limit exceeded"),
]


@pytest.mark.parametrize(("agent", "case", "kind", "message"), FAILED)
def test_what_failed_is_told_in_the_agents_own_words(agent: str, case: str, kind: str, message: str) -> None:
    failure = said(agent, case).failure
    assert failure is not None
    assert failure.kind == kind
    assert failure.message.startswith(message)
    assert 0 < len(failure.message) <= 500
    assert "\n" not in failure.message


@pytest.mark.parametrize("case", ["subscription-limit", "subscription-week"])
def test_claude_tells_when_its_limit_ends(case: str) -> None:
    failure = said("claude", case).failure
    assert failure is not None
    assert (failure.kind, failure.reset) == ("limited", 2_000_000_000)


def test_gemini_tells_when_to_try_again_by_its_own_clock() -> None:
    recorded = output("gemini", "limited")
    last = dict(recorded.events[-1])
    last["error"] = {"type": "unknown", "message": "[API Error: No more.\nSuggested retry after 7s.]\nPlease wait."}
    last["timestamp"] = "2033-05-18T03:33:13.000Z"
    failure = READERS["gemini"](recorded._replace(events=(*recorded.events[:-1], last))).failure
    assert failure == Failure("limited", "[API Error: No more. Suggested retry after 7s.] Please wait.", 2_000_000_000)


def test_gemini_that_goes_in_circles_has_failed_and_lost_its_count() -> None:
    # As printed by 0.61.0 when a model repeated itself.
    start, asked = output("gemini", "edit").events[:2]
    events: tuple[dict[str, Any], ...] = (
        {"type": "message", "role": "assistant", "content": "again and again", "delta": True},
        {"type": "error", "severity": "warning", "message": "Loop detected, stopping execution"},
        {"type": "result", "status": "success", "stats": {"total_tokens": 0, "input_tokens": 0, "models": {}}},
    )
    what = READERS["gemini"](Output((start, asked, *events), "", "", 0, whole=True))
    assert what.failure == Failure("failed", "Loop detected, stopping execution")
    assert what.usage is None


@pytest.mark.parametrize(("agent", "case"), list(cases("claude")))
def test_claude_counts_what_its_provider_counts(agent: str, case: str) -> None:
    counted = json.loads((STREAMS / "claude" / "index.json").read_text())["cases"][case].get("usage", {})
    what = said(agent, case)
    if case.startswith(("cut", "killed")) and case != "killed-resumed":
        # The exceptions: what a request took that was cut, or whose run was killed.
        assert case == "killed" or (what.usage is not None and what.usage.input_tokens in {0, 219})
        assert case != "killed" or what.usage is None
    elif counted:
        assert spent(what) == (counted["input"], counted["output"], counted["cached"])
        assert what.usage is not None
        assert what.usage.usd


def test_claude_spends_in_a_resumed_session_what_this_run_spent() -> None:
    usage = said("claude", "resume").usage
    assert usage is not None
    assert usage.usd == pytest.approx(0.0004792)
    assert not said("claude", "resume").cumulative


COUNTED = [
    ("qwen", "edit", (2000, 100, 800)),
    ("qwen", "resume", (4000, 200, 1600)),
    ("qwen/v0.15.10", "edit", (2000, 100, 800)),
    ("amp", "edit", (2000, 100, 1200)),
    ("cursor", "edit-usage", (None, 100, 0)),
    ("gemini", "edit", (2000, 114, 800)),
    ("gemini", "resume-after-kill", (1000, 57, 400)),
    ("copilot", "edit", (2000, 100, 800)),
    ("copilot", "resume", (3000, 150, 1200)),
    ("aider", "edit", (2000, 100, 0)),
    ("aider", "limited-second", (1000, 50, 0)),
    ("mini", "edit", (2000, 100, 800)),
    ("mini", "text-only", (2000, 100, 800)),
    ("mini", "broken", (1000, 50, 400)),
    ("goose", "edit", (2000, 100, 0)),
]


@pytest.mark.parametrize(("agent", "case", "counted"), COUNTED)
def test_usage_is_what_was_counted(agent: str, case: str, counted: tuple[int | None, int, int]) -> None:
    what = said(agent, case)
    assert spent(what) == counted
    assert what.usage is not None
    assert what.usage.usd is None
    assert what.cumulative == (agent.partition("/")[0] in {"qwen", "copilot", "goose"})


UNKNOWN = [(agent, "killed") for agent in ("claude", "qwen", "gemini", "copilot", "aider", "mini")]
UNKNOWN += [
    ("cursor", "edit"),
    ("cursor", "failed"),
    ("goose", "edit-old"),
    ("goose", "edit-unknown"),
    ("amp", "failed"),
]


@pytest.mark.parametrize(("agent", "case"), UNKNOWN)
def test_usage_that_is_not_told_is_unknown_and_not_zero(agent: str, case: str) -> None:
    assert said(agent, case).usage is None


def test_a_sum_over_events_of_which_some_are_missing_is_unknown() -> None:
    assert READERS["amp"](output("amp", "edit")._replace(whole=False)).usage is None


TEXTS = [
    ("claude", "edit", "done"),
    ("claude", "judge", '{"met":true,"reason":"all tests pass"}'),
    ("qwen", "judge", '{"verdict":"yes"}'),
    ("amp", "edit", "Fixed add in calc.py."),
    ("cursor", "edit", "Fixed add in calc.py."),
    ("gemini", "edit", "Fixed add in calc.py."),
    ("copilot", "judge", '{"verdict":"yes"}'),
    ("aider", "judge", '{"verdict":"yes"}'),
    ("aider", "resume", "Still fixed."),
    ("mini", "edit", "Fixed add in calc.py.\n"),
    ("goose", "edit", "Fixed add in calc.py."),
]


@pytest.mark.parametrize(("agent", "case", "text"), TEXTS)
def test_the_text_is_what_was_said_last(agent: str, case: str, text: str) -> None:
    assert said(agent, case).text == text


def test_the_last_answer_of_aider_ends_with_its_last_line() -> None:
    assert said("aider", "edit").text.splitlines()[-1] == "Fixed add in calc.py."


SESSIONS = [
    ("claude", "edit", "623d299e-084f-4bc1-b1b6-55722478af0b", "claude-opus-5-5"),
    ("claude", "killed", "533ae394-0d59-4f96-8f23-cd811e581af8", "claude-opus-5-5"),
    ("claude", "judge", "ee9b126f-88d4-4473-b41c-1bdf00ea5bd3", "claude-opus-5-5"),
    ("qwen", "edit", "c4b8c1e3-f233-48fd-aecd-4132e526b4af", "mock"),
    ("amp", "edit", "T-2775dc92-90ed-4f85-8b73-8f9766029e83", ""),
    ("cursor", "failed", "c6b62c6f-7ead-4fd6-9922-e952131177ff", "Auto"),
    ("gemini", "edit", "7e3e5178-871c-441e-91a6-8fd72991f441", "mock"),
    ("copilot", "edit", "93355c8f-8b4b-4f08-827a-c24427c9576e", "mock"),
    ("aider", "edit", "", ""),
    ("mini", "edit", "", "mock"),
    ("goose", "edit", "", ""),
]


@pytest.mark.parametrize(("agent", "case", "session", "model"), SESSIONS)
def test_session_and_model(agent: str, case: str, session: str, model: str) -> None:
    what = said(agent, case)
    assert (what.session, what.model) == (session, model)


@pytest.mark.parametrize(
    ("agent", "tool"),
    [("claude", "Bash"), ("qwen", "run_shell_command"), ("gemini", "run_shell_command"), ("copilot", "bash")],
)
def test_what_was_denied_is_named(agent: str, tool: str) -> None:
    assert said(agent, "denied").denials == (tool,)


def test_a_call_that_cursor_rejected_is_named() -> None:
    event = {"type": "tool_call", "tool_call": {"shellToolCall": {"result": {"rejected": {"reason": "no"}}}}}
    assert READERS["cursor"](Output((event,), "", "", 0, whole=True)).denials == ("shellToolCall",)


def test_a_quota_in_the_middle_is_no_limit_if_an_answer_came_after() -> None:
    recorded = output("claude", "max-turns")
    refusal = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 2_000_000_000}}
    first, *rest = recorded.events
    failure = READERS["claude"](recorded._replace(events=(first, refusal, *rest))).failure
    assert failure is not None
    assert failure.kind == "failed"


def test_a_model_that_speaks_of_limits_is_not_limited() -> None:
    words = "[API Error: 429 rate limit] litellm.RateLimitError: Error: 429 Too Many Requests, quota exceeded"
    recorded = output("qwen", "edit")
    spoken = [dict(event) for event in recorded.events]
    spoken[-1]["result"] = words
    spoken[-2]["message"] = {**spoken[-2]["message"], "content": [{"type": "text", "text": words}]}
    assert READERS["qwen"](recorded._replace(events=tuple(spoken))).failure is None
    failed = output("aider", "limited-second")
    text = failed.text.partition("litellm.")[0].replace("I fix it.", "litellm.RateLimitError: I fix it.")
    failure = READERS["aider"](failed._replace(text=text)).failure
    assert failure is not None
    assert failure.kind == "failed"


def test_a_cost_of_nothing_for_tokens_is_unknown() -> None:
    recorded = output("claude", "judge")
    free = {**recorded.events[-1], "total_cost_usd": 0}
    usage = READERS["claude"](recorded._replace(events=(free,))).usage
    assert usage is not None
    assert (usage.input_tokens, usage.usd) == (108, None)


# --- Garbage ----------------------------------------------------------------------------------------------------------

WORDS = ("type", "subtype", "result", "usage", "error", "message", "content", "assistant", "data", "x", "id", "info")
NUMBERS = st.integers() | st.just(10**400) | st.floats() | st.sampled_from([2**53, -1, 0, 1, 429])
STRINGS = st.sampled_from([*WORDS, "[API Error: 429 x", "Suggested retry after 7s.", "9999-12-31T23:59:59-23:59"])
LEAVES = st.none() | st.booleans() | NUMBERS | STRINGS | st.text() | st.just("\ud800")
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6)
)
OBJECTS = st.lists(st.dictionaries(st.sampled_from(WORDS), ANYTHING | STRINGS, max_size=8), max_size=6).map(tuple)
OUTPUTS = st.builds(Output, OBJECTS, st.text(), st.text(), st.integers(-64, 255), st.booleans(), OBJECTS)


def _is_sound(what: Said) -> None:
    assert isinstance(what.text, str)
    assert isinstance(what.session, str)
    assert isinstance(what.model, str)
    assert all(isinstance(each, str) for each in what.denials)
    assert what.cached >= 0
    if what.failure is not None:
        assert 0 < len(what.failure.message) <= 500
        assert "\n" not in what.failure.message
        what.failure.message.encode()


@pytest.mark.parametrize("agent", MINE)
@settings(deadline=None, max_examples=100 if os.environ.get("GOALRUN_TESTS") == "all" else 40)
@given(garbage=OUTPUTS)
def test_nothing_makes_a_reader_fail(agent: str, garbage: Output) -> None:
    _is_sound(READERS[agent](garbage))


WRONG: tuple[Any, ...] = (None, True, -1, 10**400, float("nan"), "x", "\ud800", [], [1], {}, {"x": 1}, [{"x": [1]}])


def spoiled(value: Any) -> Iterator[Any]:  # noqa: ANN401
    """A JSON value, with something wrong in one place: in each in turn."""
    yield from WRONG
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        for wrong in spoiled(inner):
            copy = value.copy()
            copy[key] = wrong
            yield copy


@pytest.mark.parametrize("agent", MINE)
def test_any_place_in_what_was_recorded_may_be_something_else(agent: str) -> None:
    seen = set()
    for recorded in [output(agent, case) for _, case in cases(agent)]:
        for part in ("events", "report"):
            whole = getattr(recorded, part)
            for number, event in enumerate(whole):
                shape = (
                    recorded.exit_code,
                    part,
                    str(sorted(event)),
                    str(event.get("type")),
                    str(event.get("event")),
                    str(event.get("role")),
                )
                if shape not in seen:
                    seen.add(shape)
                    for wrong in spoiled(_short(event)):
                        changed = (*whole[:number], *([wrong] if isinstance(wrong, dict) else []), *whole[number + 1 :])
                        other = (
                            recorded._replace(events=changed) if part == "events" else recorded._replace(report=changed)
                        )
                        _is_sound(READERS[agent](other))


def _short(value: Any) -> Any:  # noqa: ANN401
    """Without what no reader looks at: the long lists of tools and skills, and the configuration."""
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items() if key not in {"skills", "tools", "config"}}
    return [_short(inner) for inner in value[:6]] if isinstance(value, list) else value


@pytest.mark.parametrize("agent", MINE)
def test_a_stream_may_end_anywhere(agent: str) -> None:
    for recorded in [output(agent, case) for _, case in cases(agent)]:
        for end in range(len(recorded.events)):
            _is_sound(READERS[agent](recorded._replace(events=recorded.events[:end])))
        for end in range(0, len(recorded.text), 97):
            _is_sound(READERS[agent](recorded._replace(text=recorded.text[:end])))

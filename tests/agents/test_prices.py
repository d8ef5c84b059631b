"""Prices of well-known models, and of nothing else. The amounts are the providers' own lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalrun.adapters.prices import usd
from goalrun.core.model import Usage

MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000)


@pytest.mark.parametrize(
    ("model", "fresh", "cached", "given"),
    [
        ("claude-sonnet-4-5", 3.0, 0.3, 15.0),
        ("claude-sonnet-4-20250514", 3.0, 0.3, 15.0),
        ("anthropic/claude-sonnet-4-5", 3.0, 0.3, 15.0),
        ("openrouter/anthropic/claude-sonnet-4", 3.0, 0.3, 15.0),
        ("gpt-5", 1.25, 0.125, 10.0),
        ("openai:gpt-5", 1.25, 0.125, 10.0),
        ("openai-chat:gpt-5", 1.25, 0.125, 10.0),
        ("google:gemini-2.5-pro", 1.25, 0.125, 10.0),
    ],
)
def test_list_prices_of_a_million_tokens(model: str, fresh: float, cached: float, given: float) -> None:
    assert usd(model, MILLION, 0) == pytest.approx(fresh + given)
    assert usd(model, MILLION, 1_000_000) == pytest.approx(cached + given)
    half = Usage(input_tokens=1_000_000, output_tokens=0)
    assert usd(model, half, 500_000) == pytest.approx((fresh + cached) / 2)


def test_a_long_sum_of_requests_is_no_long_request() -> None:
    """Sonnet's and Gemini's prices rise for a request above 200 000 tokens, which a sum does not show."""
    for model in ("claude-sonnet-4-5", "gemini-2.5-pro"):
        one = usd(model, Usage(input_tokens=10_000, output_tokens=100), 0)
        assert one is not None
        assert usd(model, Usage(input_tokens=1_000_000, output_tokens=10_000), 0) == pytest.approx(one * 100)


@pytest.mark.parametrize(
    "model",
    [
        "",
        "scripted",
        "mock/gpt-5",
        "ollama/llama3",
        "gpt-oss:20b",
        "cerebras/qwen-3-coder-480b",
        "github-copilot/gpt-4o",
        "openai/",
        "/",
        ":",
        "gpt",
        "\0",
        "a" * 9999,
    ],
)
def test_an_unknown_model_has_no_price(model: str) -> None:
    assert usd(model, MILLION, 0) is None


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        (Usage(), 0),
        (Usage(input_tokens=1), 0),
        (Usage(output_tokens=1), 0),
        (Usage(input_tokens=1, output_tokens=1), 2),
        (Usage(input_tokens=1, output_tokens=1), -1),
        (Usage(input_tokens=1, output_tokens=-1), 0),
    ],
)
def test_unknown_tokens_have_no_price(usage: Usage, cached: int) -> None:
    assert usd("gpt-5", usage, cached) is None


NAMES = st.one_of(
    st.text(), st.sampled_from(["gpt-5", "openai/gpt-5", "litellm/gpt-5", "litellm/x/y", "claude-opus-4-5"])
)
COUNTS = st.one_of(st.none(), st.integers(), st.just(10**400))


@given(model=NAMES, taken=COUNTS, answered=COUNTS, cached=st.integers())
def test_nothing_raises(model: str, taken: int | None, answered: int | None, cached: int) -> None:
    cost = usd(model, Usage(input_tokens=taken, output_tokens=answered), cached)
    assert cost is None or cost >= 0

"""What tokens cost, where an agent does not say: the list prices that come with genai-prices, never fetched."""

import re

from goalrun.core.model import Usage

_UNIT = 1000
_MOST = 10**12
"""Nothing costs more; what seems to is no count of tokens."""
_PROVIDER = re.compile(r"[/:]")


def usd(model: str, usage: Usage, cached: int) -> float | None:
    """What a usage costs at its model's list price.

    Providers ask more for each token of a very long request; of a sum over requests it is not known which were, so
    this is the price of requests that are not. Nor is it known what was written to a cache, which some charge for.

    Args:
        model: as its provider calls it; the provider may stand before it, ``openrouter/openai/gpt-5``.
        usage: input tokens include the cached ones.
        cached: how many input tokens were read from a cache.

    Returns:
        None if the price or the number of tokens is unknown.
    """
    # Half a second, and only where an agent names no price.
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    taken, given = usage.input_tokens, usage.output_tokens
    if taken is None or given is None or not 0 <= cached <= taken or given < 0:
        return None
    first, *rest = _PROVIDER.split(model, maxsplit=1)
    kinds = {
        "fresh": Tokens(input_tokens=_UNIT),
        "cached": Tokens(input_tokens=_UNIT, cache_read_tokens=_UNIT),
        "given": Tokens(output_tokens=_UNIT),
    }
    try:
        prices = {
            kind: calc_price(tokens, rest[0] if rest else first, provider_id=first if rest else None).total_price
            for kind, tokens in kinds.items()
        }
    except (LookupError, ValueError):
        return None
    if not any(prices.values()):
        # Free, paid in another way, or not in the list: it does not say which.
        return None
    cost = prices["fresh"] * (taken - cached) + prices["cached"] * cached + prices["given"] * given
    return float(cost / _UNIT) if cost < _MOST else None

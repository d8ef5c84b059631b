"""Bars per turn, hour or day, as numbers for an SVG."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from goalrun.core.evidence import count
from goalrun.pages.model import Slot, Turn

WIDTH, HEIGHT, LEFT, FOOT = 480.0, 150.0, 56.0, 22.0
WIDEST_BAR, FEWEST_SLOTS, MOST_FEET = 36.0, 6, 10
GAP_FROM = 4.0
"""Thinner bars touch, or their gaps make patterns."""


class Bar(NamedTuple):
    """A rectangle; ``kind`` is ``good``, ``bad``, ``alarm`` or ``plain``, ``tip`` what it says."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    tip: str


class Plot(NamedTuple):
    """A plot.

    Attributes:
        about: what it comes to, in one sentence.
        kinds: those of its bars, and what they mean.
        marks: on the left, as (y, text).
        feet: below, as (x, text).
    """

    title: str
    about: str
    kinds: tuple[tuple[str, str], ...]
    bars: tuple[Bar, ...]
    marks: tuple[tuple[float, str], ...]
    feet: tuple[tuple[float, str], ...]


def plots(turns: Sequence[Turn]) -> tuple[Plot, ...]:
    """What was passed, and what was spent, turn by turn; of one that is under way nothing is known yet."""
    over = [turn for turn in turns if turn.decision]
    return (_passed(over), _spent(over)) if over else ()


def _passed(turns: Sequence[Turn]) -> Plot:
    counted = any(turn.tests for turn in turns)
    noun = "Tests" if counted else "Checks"
    rows = []
    for turn in turns:
        good, bad = (turn.tests if counted else turn.checks) or (0, 0)
        tip = f"turn {turn.number}: {good} passed, {bad} failed" + ("; tampered" if turn.touched else "")
        rows.append([(good, "alarm" if turn.touched else "good", tip), (bad, "bad", tip)])
    last = rows[-1][0][0], rows[-1][1][0]
    about = f"After the last turn: {last[0]} passed, {last[1]} failed."
    kinds = {"good": "passed", "alarm": "passed, in a turn with tampering", "bad": "failed"}
    return _plot(f"{noun} passed per turn", about, kinds, rows)


def _spent(turns: Sequence[Turn]) -> Plot:
    usd = [turn.usage.usd if turn.usage is not None else None for turn in turns]
    tokens = [turn.usage.total_tokens if turn.usage is not None else None for turn in turns]
    seconds = [turn.worker.seconds if turn.worker is not None else None for turn in turns]
    found = ((usd, "Spend", "USD"), (tokens, "Spend", "tokens"), (seconds, "Worker's time", "seconds"))
    values, noun, unit = next(each for each in found if any(each[0]) or each[0] is seconds)
    rows = [
        [(value or 0.0, "plain", f"turn {turn.number}: " + ("unknown" if value is None else f"{_short(value)} {unit}"))]
        for turn, value in zip(turns, values, strict=True)
    ]
    unknown = sum(value is None for value in values)
    known = f"{_short(sum(value or 0.0 for value in values))} {unit}"
    about = f"At least {known}: unknown for {count(unknown, 'turn')}." if unknown else f"{known} in all."
    return _plot(f"{noun} per turn", about, {"plain": unit}, rows)


def over_time(unit: str, slots: Sequence[Slot]) -> tuple[Plot, ...]:
    """What a fleet spent, and how many of its goals ended, in each hour or day."""
    tips = [f"{slot.at:%Y-%m-%d}" + (f" {slot.at:%H:%M}" if unit == "hour" else "") for slot in slots]
    names = [f"{slot.at:%H:%M}" if unit == "hour" else f"{slot.at:%m-%d}" for slot in slots]
    found = []
    unknown = sum(slot.unknown for slot in slots)
    blind = f", and what {count(unknown, 'run')} did not report" if unknown else ""
    for noun, values in (("USD", [slot.usd for slot in slots]), ("tokens", [slot.tokens for slot in slots])):
        rows = [[(value, "plain", f"{tip}: {_short(value)} {noun}")] for value, tip in zip(values, tips, strict=True)]
        about = f"{_short(sum(values))} {noun} since {tips[0]} UTC{blind}."
        found.append(_plot(f"{noun[0].upper()}{noun[1:]} per {unit}", about, {"plain": noun}, rows, names))
    ended = []
    for slot, tip in zip(slots, tips, strict=True):
        said = f"{tip}: {slot.achieved} achieved, {slot.other} ended otherwise"
        ended.append([(slot.achieved, "good", said), (slot.other, "bad", said)])
    good, bad = sum(slot.achieved for slot in slots), sum(slot.other for slot in slots)
    about = f"{good:,} achieved and {bad:,} ended otherwise since {tips[0]} UTC."
    kinds = {"good": "achieved", "bad": "ended otherwise"}
    return (*found, _plot(f"Goals ended per {unit}", about, kinds, ended, names))


def _plot(
    title: str,
    about: str,
    kinds: Mapping[str, str],
    rows: Sequence[Sequence[tuple[float, str, str]]],
    names: Sequence[str] = (),
) -> Plot:
    """Stacked bars; each row is one turn's, hour's or day's, from the bottom up. Without names they are counted."""
    most = max(sum(value for value, _, _ in row) for row in rows) or 1.0
    floor = HEIGHT - FOOT
    room = (floor - 8) / most
    slot = (WIDTH - LEFT) / max(len(rows), FEWEST_SLOTS)
    width = min(WIDEST_BAR, slot * 0.8) if slot > GAP_FROM else slot
    bars = []
    for number, row in enumerate(rows):
        x, y = LEFT + slot * number + (slot - width) / 2, floor
        for value, kind, tip in row:
            height = value * room
            y -= height
            if height > 0:
                bars.append(Bar(round(x, 2), round(y, 2), round(width, 2), round(height, 2), kind, tip))
    marks = tuple((round(floor - value * room, 2), _shorter(value)) for value in (0.0, most))
    each = -(-len(rows) // MOST_FEET)
    feet = tuple(
        (round(LEFT + slot * (n + 0.5), 2), names[n] if names else str(n + 1)) for n in range(0, len(rows), each)
    )
    drawn = {bar.kind for bar in bars}
    return Plot(title, about, tuple((k, name) for k, name in kinds.items() if k in drawn), tuple(bars), marks, feet)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def _shorter(value: float) -> str:
    """A number that fits beside a plot."""
    for least, scale, unit in ((1e10, 1e9, "G"), (1e7, 1e6, "M"), (1e5, 1e3, "k")):
        if value >= least:
            return f"{value / scale:,.0f} {unit}"
    return _short(value)

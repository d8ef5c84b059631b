"""A picture of a goal as lines for a terminal: as many as fit, the most telling kept.

Whatever a worker, a check or a judge said goes through ``one_line`` first, and becomes text, never markup.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from rich.text import Text

from goalrun.adapters.glimpse import Glimpse
from goalrun.cli.drawing_steps import step_lines
from goalrun.cli.render import worth
from goalrun.cli.strokes import BAD, BUSY, GOOD, OFF, bar, clock, icon, joined, state_style
from goalrun.core.evidence import count, one_line
from goalrun.core.model import CheckResult, Tamper, TurnRecord
from goalrun.core.picture import Picture
from goalrun.core.spec import PLAIN_COMMAND
from goalrun.core.value import Json

MAX_TAMPERS = 20
MAX_TURNS = 100
WIDE = 100
STAGES = {
    "queue": "waiting for the workspace",
    "preparing": "preparing",
    "base": "checks on the base",
    "worker": "worker",
    "snapshot": "snapshot",
    "checks": "checks",
    "judge": "judge",
    "deciding": "deciding",
    "quota": "waiting for a provider's limit to end",
    "ended": "ended",
}
RUNS = {"preparing", "base", "worker", "snapshot", "checks", "judge", "deciding"}
"""Stages whose time counts."""


class View(NamedTuple):
    """What is drawn, and when and where.

    Attributes:
        note: what goalrun itself says beside the journal, in one line.
        width, height: of the terminal, in cells.
    """

    picture: Picture
    glimpse: Glimpse
    now: datetime
    width: int
    height: int
    note: str = ""


class Part(NamedTuple):
    """Some lines that belong together.

    Attributes:
        least: so many are shown before any other part has more than its own least.
        most: so many before what is left is given away.
        last: of more lines than fit, the last ones.
    """

    lines: Sequence[Text]
    least: int
    most: int
    last: bool = False


def goal_lines(view: View) -> list[Text]:
    """A goal, in at most ``view.height`` lines of at most ``view.width`` cells."""
    picture = view.picture
    top = [*_head(view), Text()]
    bottom = [Text(), _budget(view)]
    busy = picture.stage == "worker"
    parts = [
        Part(_tampering(picture), 2, 5),
        Part(_flow(view), 6, 99),
        Part(_worker(view), 3, 8, last=True),
        Part(_checks(view), 2 if busy else 4, 12),
        Part(_told(picture), 2, 6),
        Part(_turns(picture), 3, 99, last=True),
    ]
    shown = _fitted(parts, view.height - len(top) - len(bottom) - 1)
    tampering, steps, worker, checks, told, turns = shown
    groups = [group for group in (turns, [_stage(view), *steps, *worker], [*checks, *tampering], told) if group]
    middle = _spaced(groups, view.height - len(top) - len(bottom))
    return [_cut(line, view.width) for line in (*top, *middle, *bottom)][: view.height]


def _spaced(groups: Sequence[Sequence[Text]], room: int) -> list[Text]:
    """Groups of lines with an empty line between them, where there is room, in exactly so many lines."""
    spare = room - sum(map(len, groups))
    lines: list[Text] = []
    for group in groups:
        if lines and spare > 0:
            lines.append(Text())
            spare -= 1
        lines += group
    # What is short does not jump about: the budget stays at the foot.
    return lines + [Text()] * spare


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


def _fitted(parts: Sequence[Part], room: int) -> list[list[Text]]:
    """The lines of each part that there is room for: the least of each, the first parts first; then more of each."""
    sizes = [0] * len(parts)
    for wanted in ([part.least for part in parts], [part.most for part in parts], [room for _ in parts]):
        for place, most in enumerate(wanted):
            more = max(0, min(most - sizes[place], len(parts[place].lines) - sizes[place], room))
            sizes[place] += more
            room -= more
    return [
        list(part.lines[-size:] if part.last and size else part.lines[:size])
        for part, size in zip(parts, sizes, strict=True)
    ]


def _head(view: View) -> list[Text]:
    spec = view.picture.state.spec
    state = view.picture.state.status.value
    who = spec.flow.flow.name if spec.flow is not None else ", else ".join(agent.name for agent in spec.worker.chain)
    judges = " and ".join(judge.name for judge in spec.judges) or "none"
    about = [one_line(spec.workspace, 200), f"worker {one_line(who, 60)}"]
    about += [] if spec.alone else [f"judge {one_line(judges, 60)}"]
    return [
        joined((state, state_style(state)), (f"  {spec.id}", "dim"), (f"  {one_line(spec.objective, 300)}", "bold")),
        Text(" · ".join(about), style="dim"),
    ]


def _stage(view: View) -> Text:
    picture = view.picture
    state = picture.state
    if picture.stage == "ended":
        return joined((f"{state.status.value}", state_style(state.status.value)), f": {one_line(state.detail)}")
    limit = state.spec.limits.max_turns
    turn = "" if not picture.turn or state.spec.alone else f"turn {picture.turn} of {limit} · "
    what = STAGES[picture.stage]
    if picture.stage == "worker" and state.open is not None:
        who = "" if state.open.agent in {"", PLAIN_COMMAND} else f" {one_line(state.open.agent, 40)}"
        what += who + (f", attempt {state.open.attempt}" if state.open.attempt > 1 else "")
    what += f" ({view.glimpse.busy})" if picture.stage in {"base", "checks"} and view.glimpse.busy else ""
    note = f"  {one_line(view.note, 200)}" if view.note else ""
    elapsed = clock(_since(picture.since, view.now))
    return joined(("▶ ", BUSY), (f"{turn}{what}", "bold"), f"  {elapsed}", (note, "yellow"))


def _since(began: str, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(began)).total_seconds()) if began else 0.0


def _turns(picture: Picture) -> list[Text]:
    state = picture.state
    lines = []
    if state.base_verification is not None:
        passed = sum(check.outcome == "pass" for check in state.base_verification.checks)
        lines.append(joined("   base  ", (f"{passed} of {len(state.base_verification.checks)} checks pass", "dim")))
    return lines + [_turn(record) for record in state.turns[-MAX_TURNS:]]


def _turn(record: TurnRecord) -> Text:
    outcome, checks = record.outcome, record.outcome.verification.checks
    good = record.decision in {"achieved", "done"}
    tests = [check.tests for check in checks if check.tests is not None]
    passed, run = sum(each.passed for each in tests), sum(each.passed + each.failed for each in tests)
    green = sum(check.outcome == "pass" for check in checks)
    facts = [
        clock(outcome.worker.seconds),
        count(outcome.snapshot.changed_files, "file"),
        *([f"{green}/{len(checks)} checks"] if checks else []),
        *([f"{passed}/{run} tests"] if tests else []),
        *([f"{outcome.worker.usage.usd:.2f} USD"] if outcome.worker.usage and outcome.worker.usage.usd else []),
    ]
    worker = "" if outcome.worker.outcome == "ok" else f" {outcome.worker.outcome}"
    tampered = " tampered" if outcome.verification.tampering else ""
    return joined(
        icon("done" if good else "failed" if tampered or record.decision != "continue" else "on"),
        f" turn {outcome.turn:<3}",
        (worker, BAD),
        (tampered, "bold red"),
        f" {' · '.join(facts)}",
        (f"  → {record.decision}: {one_line(record.reason, 200)}", "dim"),
    )


def _flow(view: View) -> list[Text]:
    flow = view.picture.state.spec.flow
    return [] if flow is None else step_lines(flow.flow, view.picture, view.now)


def _worker(view: View) -> list[Text]:
    if view.picture.stage not in {"worker", "snapshot"}:
        return []
    return [joined(("│ ", "dim"), line) for line in view.glimpse.lines]


def _checks(view: View) -> list[Text]:
    """The checks of what goes on, with what is known of each; of an end, those that it rests on."""
    picture, stage = view.picture, view.picture.stage
    commands = picture.state.spec.checks
    if stage not in {"base", "checks"}:
        return _last_checks(picture)
    known = [_check(check, graded=False) for check in view.glimpse.checks[: len(commands)]]
    left = commands[len(known) :]
    waiting = [joined(icon("running" if not n else "todo"), f" {one_line(each, 200)}") for n, each in enumerate(left)]
    proof = [] if left else [joined(icon("running"), (" hidden checks, and whether the checks can fail", "dim"))]
    return [*known, *waiting, *proof]


def _last_checks(picture: Picture) -> list[Text]:
    report = picture.latest
    if report is None or not report.checks:
        return []
    last = f"turn {len(picture.state.turns)}" if picture.state.turns else "the base"
    caption = [joined((f"checks of {last}", OFF))] if picture.stage in {"worker", "snapshot"} else []
    return [*caption, *(_check(check) for check in report.checks)]


def _check(check: CheckResult, *, graded: bool = True) -> Text:
    good = check.outcome == "pass"
    facts = [clock(check.seconds)]
    facts += [f"{check.tests.passed} passed, {check.tests.failed} failed"] if check.tests else []
    facts += [] if good and not graded else [check.grade] if good else [check.outcome]
    what = "hidden: " if check.hidden else ""
    reason = f"  {one_line(check.reason, 200)}" if check.reason else ""
    failing = f": {one_line(', '.join(check.failing[:3]), 200)}" if check.failing else ""
    return joined(
        icon("done" if good else "failed"),
        f" {what}{one_line(check.command, 60)}",
        (f"  {' · '.join(facts)}", OFF if good else BAD),
        (f"{reason}{failing}", "dim"),
    )


def _tampering(picture: Picture) -> list[Text]:
    # While checks run, the latest report is that of the turn before.
    report = None if picture.stage in {"base", "checks"} else picture.latest
    found: Sequence[Tamper] = report.tampering if report is not None else ()
    lines = [joined((f"tampered  {one_line(each.path, 200)} ({each.kind})", "bold red")) for each in found]
    more = len(lines) - MAX_TAMPERS + 1
    return lines if more < 2 else [*lines[: MAX_TAMPERS - 1], joined((f"tampered  and {more} more", "bold red"))]  # noqa: PLR2004


def _told(picture: Picture) -> list[Text]:
    """What happened beside the turns, and what the worker was told."""
    state = picture.state
    lines = [joined((one_line(picture.told), "yellow"))] if picture.told else []
    hints = [joined(("hint      ", GOOD), one_line(hint)) for hint in state.hints]
    said = [line for line in state.feedback.splitlines() if line.strip()] if picture.stage == "worker" else []
    told = [joined(("feedback  " if not n else " " * 10, GOOD), (one_line(line), OFF)) for n, line in enumerate(said)]
    return [*lines, *hints, *told]


def _budget(view: View) -> Text:
    state, limits = view.picture.state, view.picture.state.spec.limits
    spent = state.usage
    running = _since(view.picture.at, view.now) if view.picture.stage in RUNS else 0.0
    parts = [] if state.spec.alone else [bar("turns", view.picture.turn, limits.max_turns, "d")]
    parts.append(bar("time", spent.seconds + running, limits.max_time, "clock"))
    if spent.usd or limits.max_usd is not None:
        parts.append(bar("USD", spent.usd, limits.max_usd, ".2f"))
    if spent.total_tokens or limits.max_tokens is not None:
        parts.append(bar("tokens", spent.total_tokens, limits.max_tokens, ",d"))
    return Text("   ").join(parts)


def list_lines(results: Sequence[dict[str, Json]], chosen: int, width: int) -> list[Text]:
    """Several goals, a line each, with what is chosen marked; ids where there is room for them."""
    wide = width >= WIDE
    return [_cut(_listed(result, on=place == chosen, wide=wide), width) for place, result in enumerate(results)]


def _listed(result: dict[str, Json], *, on: bool, wide: bool) -> Text:
    state = str(result["state"])
    mark = ("▶ " if on else "  ", BUSY)
    if result.get("unreadable"):
        return joined(mark, str(result["id"]), ("  unreadable  ", BAD), one_line(str(result["detail"])))
    usage, limits = result["usage"], result["limits"]
    assert isinstance(usage, dict)  # noqa: S101 - as result.head makes them; for the type checker
    assert isinstance(limits, dict)  # noqa: S101
    usd = f"{usage['usd']:.2f} USD" if usage["usd"] else ""
    turns = f"{result['turns']}/{limits['max_turns']}"
    seconds = usage["seconds"]
    took = clock(seconds if isinstance(seconds, float | int) else 0.0)
    return joined(
        mark,
        (f"{state:<15}", state_style(state)),
        f" {turns:>7} {took:>8} {usd:>9}  ",
        (f"{result['id']}  " if wide else "", OFF),
        (one_line(str(result["objective"]), 200), "bold" if on else ""),
        (worth(result), OFF),
    )

"""What people see of a goal. Results go to standard output, progress to standard error; colour only on a terminal."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, Any

from goalrun.adapters.views import REACHED
from goalrun.core.evidence import count, one_line
from goalrun.errors import EnvironmentFailure

COLOURS = {"good": "32", "bad": "31", "alarm": "31;1", "quiet": "2", "strong": "1", "busy": "36"}
GOOD, BUSY = {"achieved", "done", "pass", "weak_pass", "ok"}, {"running", "waiting", "paused", "interrupted"}
MAX_LISTED = 20
NO_GOALS = 'no goals yet; goalrun start "make tests pass"'
Json = dict[str, Any]


def paint(text: str, colour: str, stream: IO[str]) -> str:
    """Text in colour, where the stream is a terminal and NO_COLOR (no-color.org) is not set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def painted(word: str, stream: IO[str]) -> str:
    """A state or outcome in its colour."""
    colour = "good" if word in GOOD else "busy" if word in BUSY else "alarm" if word == "tampered" else "bad"
    return paint(word, colour, stream)


def out(text: str) -> None:
    """One line of result.

    Raises:
        EnvironmentFailure: it cannot be written; a reader who has had enough (`goalrun list | head`) is no failure.
    """
    try:
        sys.stdout.write(text + "\n")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as failure:
        why = f"cannot write to standard output: {failure.strerror}"
        raise EnvironmentFailure(why, hint="goalrun status shows it again") from failure


def note(text: str) -> None:
    """One line of progress."""
    # That nobody can read it ends no goal.
    with suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def print_json(value: object) -> None:
    """A result as JSON."""
    out(json.dumps(value, indent=2))


def print_result(result: object, lines: Iterable[str], *, as_json: bool) -> None:
    """A result as JSON, or as lines for people."""
    if as_json:
        print_json(result)
        return
    for line in lines:
        out(line)


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 60:  # noqa: PLR2004 - a minute
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def ending(result: Json) -> Iterator[str]:
    """The last lines of a run: how it ended, on what that rests, and what to do next."""
    turns = count(result["turns"], "turn")
    state = painted(result["state"], sys.stdout)
    yield f"{state}  {result['id']}  after {turns}, {seconds(result['usage']['seconds'])}{spend(result)}"
    if result["detail"]:
        yield f"  {one_line(result['detail'], 600)}"
    if result["snapshot"] is not None:
        yield f"  snapshot {result['snapshot']['commit'][:12]}; see goalrun diff {result['id']}"
    last = result["turns"]
    if result["state"] not in REACHED and result["best_turn"] and result["best_turn"] != last:
        yield f"  turn {result['best_turn']} was better than the last: goalrun restore {result['id']} --turn best"
    if result["state"] not in {*REACHED, "running"}:
        yield f"  go on: {next_command(result)}"


def next_command(result: Json) -> str:
    """The command with which a goal that has ended goes on."""
    goal, limits, usage = result["id"], result["limits"], result["usage"]
    match result["state"]:
        case "waiting":
            return f"goalrun answer {goal} yes|no|TEXT"
        case "max_turns":
            return f"goalrun resume {goal} --max-turns +{limits['max_turns']}"
        case "stuck":
            return f"goalrun resume {goal} --hint TEXT"
        case "blocked":
            return f"remove what blocks it, then goalrun resume {goal} (--hint TEXT says so)"
        case "budget_exceeded":
            return f"goalrun resume {goal}{_raised(limits, usage)}"
        case _:
            return f"goalrun resume {goal}"


def _raised(limits: Json, usage: Json) -> str:
    """The options that make room under the limits that are used up, or whose spend nobody reports."""
    spent = {"max_tokens": usage["total_tokens"], "max_usd": usage["usd"], "max_time": usage["seconds"]}
    set_ = {name: value for name, value in spent.items() if limits[name] is not None}
    if any(value is None for value in set_.values()):
        return " --allow-unknown-spend"
    used_up = [name for name, value in set_.items() if value >= limits[name]]
    # A judge's last answer can end it a little before the limit.
    return "".join(f" --{name.replace('_', '-')} +{limits[name]:g}" for name in used_up or set_)


def spend(result: Json) -> str:
    """What was spent, as far as it is known."""
    usage = result["usage"]
    tokens = f", {usage['total_tokens']} tokens" if usage["total_tokens"] else ""
    usd = f", {usage['usd']:.4f} USD" if usage["usd"] else ""
    return tokens + usd


def status_lines(result: Json) -> Iterator[str]:
    """A goal in a few lines."""
    yield f"{result['id']}  {painted(result['state'], sys.stdout)}"
    yield f"  objective   {one_line(result['objective'], 160)}"
    yield f"  workspace   {one_line(result['workspace'], 400)}"
    limits, usage = result["limits"], result["usage"]
    best = f" (best: {result['best_turn']})" if result["best_turn"] else ""
    yield f"  turns       {result['turns']} of {limits['max_turns']}{best}"
    yield f"  time        {seconds(usage['seconds'])}{spend(result)}"
    if result["pid"]:
        yield f"  process     {result['pid']}"
    if result["detail"]:
        yield f"  detail      {one_line(result['detail'], 600)}"


def show_lines(result: Json) -> Iterator[str]:
    """A goal turn by turn."""
    yield from status_lines(result)
    if result["base_verification"] is not None:
        yield f"base          {result['base']['commit'][:12]}"
        yield from verification_lines(result["base_verification"])
    for record in result["turn_records"]:
        worker = record["worker"]
        yield (
            f"turn {record['turn']:<8} worker {painted(worker['outcome'], sys.stdout)}, {seconds(worker['seconds'])}"
            f"{spend(worker)}; "
            f"{count(record['changed_files'], 'file')} changed; snapshot {record['snapshot']['commit'][:12]}"
        )
        if worker["model"] or worker["session"]:
            yield f"  agent       {worker['agent']}, model {worker['model'] or '?'}, session {worker['session'] or '-'}"
        for path, step in worker.get("steps", {}).items():
            yield f"  step        {step_line(path, step, sys.stdout)}"
        yield from counted(worker)
        for tool in worker["denials"]:
            yield f"  denied      {one_line(tool)}"
        for edit in record["snapshot"].get("protected_edits", []):
            yield f"  put back    {one_line(edit['path'])} ({edit['kind']})"
        yield from verification_lines(record["verification"])
        if record["judgement"] is not None:
            judged = "achieved" if record["judgement"]["achieved"] else "not achieved"
            yield f"  judge       {judged}: {one_line(record['judgement']['reason'])}"
        yield f"  → {record['decision']}: {one_line(record['reason'], 600)}"


def counted(flow: Json) -> Iterator[str]:
    """How many steps and workers of a flow ended how, and whose output is the flow's."""
    for what, numbers in flow.get("counts", {}).items():
        yield f"  {what:<11} {', '.join(f'{number} {name}' for name, number in numbers.items() if number)}"
    if flow.get("source"):
        yield f"  output      of {one_line(flow['source'])}"


def step_line(path: str, step: Json, stream: IO[str]) -> str:
    """What became of a step of a flow, of an item or of a member."""
    again = " (reused)" if step["cached"] else f" after {step['attempts']} tries" if step["attempts"] > 1 else ""
    took = f" in {seconds(step['seconds'])}" if step["attempts"] else ""
    winner = f"; {one_line(step['winner'])} won" if step["winner"] else ""
    why = f"; not reused: {one_line(step['why'])}" if step["why"] else ""
    reason = f": {one_line(step['reason'])}" if step["reason"] else ""
    return f"{painted(step['status'], stream)} {one_line(path)}{again}{took}{winner}{why}{reason}"


def verification_lines(verification: Json) -> Iterator[str]:
    """A verification: tampering first, then each check."""
    tampering = verification["tampering"]
    for tamper in tampering[:MAX_LISTED]:
        yield f"  {paint('tampered', 'alarm', sys.stdout)}    {one_line(tamper['path'])} ({tamper['kind']})"
    if len(tampering) > MAX_LISTED:
        yield f"  tampered    and {len(tampering) - MAX_LISTED} more"
    for check in verification["checks"]:
        yield f"  {painted(check['outcome'], sys.stdout):<11} {check_line(check)}"
        for test in check["failing"][:MAX_LISTED]:
            yield f"                failed: {one_line(test)}"


def check_line(check: Json) -> str:
    """One check after its outcome."""
    tests = check["tests"]
    counted = f", {tests['passed']} passed, {tests['failed']} failed" if tests else ""
    reason = f": {one_line(check['reason'])}" if check["reason"] else ""
    hidden = "hidden: " if check["hidden"] else ""
    return f"{hidden}{one_line(check['command'], 120)} ({check['grade']}{counted}, {seconds(check['seconds'])}){reason}"


def list_lines(results: list[Json]) -> Iterator[str]:
    """All goals, a line each."""
    for result in results:
        if result.get("unreadable"):
            yield f"{result['id']}  {paint('unreadable', 'bad', sys.stdout)}  {one_line(result['detail'])}"
            continue
        # Padded before it is painted: escapes have no width.
        state = painted(result["state"], sys.stdout) + " " * max(0, 15 - len(result["state"]))
        turns = f"{result['turns']}/{result['limits']['max_turns']}"
        yield f"{result['id']}  {state} {turns:>7}  {one_line(result['objective'], 60)}{worth(result)}"


def worth(result: Json) -> str:
    """Of an achieved goal in a list: by what grade, and at what level. Goals of before this was kept say so."""
    return f"  ({result.get('grade') or 'see status'}, {result['sandbox']})" if result["state"] == "achieved" else ""

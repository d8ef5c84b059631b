"""Is the goal getting anywhere? Told from trees, failing checks and reasons; nothing a worker can talk about."""

import re
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise, takewhile

from goalrun.core.evidence import count
from goalrun.core.model import CheckResult, TurnOutcome, TurnRecord, VerificationReport
from goalrun.core.value import Value

SIMILAR = 0.8
"""Jaccard index of word trigrams from which two reasons say the same."""
QUICK_SECONDS = 10.0
_NOISE = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?\s?m?s\b|/[\w./-]*/", re.IGNORECASE)


class Standstill(Value):
    """How long a goal has been going nowhere: ``turns`` running, of which ``after`` would be stuck."""

    turns: int
    after: int
    why: str

    @property
    def stuck(self) -> bool:
        """Whether it has been going on for long enough to stop."""
        return self.turns >= self.after

    @property
    def warned(self) -> bool:
        """Whether the worker should be told that one more such turn ends the goal."""
        return not self.stuck and self.turns >= self.after - 1 and self.turns > 0


def standstill(base_tree: str, turns: Sequence[TurnRecord], outcome: TurnOutcome, after: int) -> Standstill:
    """The longest kind of standstill that ends with this outcome.

    Args:
        base_tree: the tree before the first of ``turns``.
        turns: the finished turns that count, oldest first.
        outcome: the turn after them.
        after: turns running that are too many; 0 switches this off.
    """
    if after == 0:
        return Standstill(turns=0, after=1, why="")
    outcomes = [record.outcome for record in turns] + [outcome]
    kinds = (
        _unchanged(base_tree, outcomes, after),
        _going_round(base_tree, outcomes),
        _same_failures(outcomes, after),
        _same_reasons(outcomes),
    )
    return max(kinds, key=lambda kind: (kind.stuck, kind.warned, kind.turns))


def failing_signature(report: VerificationReport) -> frozenset[str]:
    """What fails, so that two turns can be compared; empty when nothing does."""
    failed = (entry for check in report.checks if check.outcome != "pass" for entry in _signature(check))
    return frozenset(failed) | {f"protected\0{tamper.path}" for tamper in report.tampering}


def _signature(check: CheckResult) -> tuple[str, ...]:
    if check.failing:
        return tuple(f"{check.command}\0{test}" for test in check.failing)
    # Without test ids the output is all there is to tell one failure from another; times and
    # addresses in it change by themselves.
    return (f"{check.command}\0{_NOISE.sub('', check.excerpt)}",)


def _passed(report: VerificationReport) -> int:
    return sum(check.tests.passed for check in report.checks if check.tests is not None)


def _running(flags: Iterable[bool]) -> int:
    """How many flags are true before the first that is not; no more of them are asked for."""
    return sum(1 for _ in takewhile(bool, flags))


def _unchanged(base_tree: str, outcomes: Sequence[TurnOutcome], after: int) -> Standstill:
    trees = [base_tree] + [outcome.snapshot.tree for outcome in outcomes]
    turns = _running(new == old for new, old in pairwise(reversed(trees)))
    quick = turns and all(outcome.worker.seconds < QUICK_SECONDS for outcome in outcomes[-turns:])
    why = f"no file has changed for {count(turns, 'turn')} running"
    return Standstill(turns=turns, after=after, why=why + (", each over within seconds" if quick else ""))


def _going_round(base_tree: str, outcomes: Sequence[TurnOutcome]) -> Standstill:
    """A→B→A is told to the worker; going on round the circle is stuck.

    Going back after a tampered turn is what the worker was asked to do, so such turns do not count.
    """
    trees = [outcome.snapshot.tree for outcome in outcomes if outcome.verification.outcome != "tampered"]
    honest = [base_tree, *trees]
    places = range(len(trees), 0, -1)
    back = (honest[place] in honest[:place] and honest[place] != honest[place - 1] for place in places)
    turns = 0 if outcomes[-1].verification.outcome == "tampered" else _running(back)
    return Standstill(turns=turns, after=2, why="the files went back to an earlier state (A → B → A)")


def _same_failures(outcomes: Sequence[TurnOutcome], after: int) -> Standstill:
    last = outcomes[-1].verification
    signature = failing_signature(last)
    same = (
        bool(signature)
        and failing_signature(outcome.verification) == signature
        and _passed(outcome.verification) >= _passed(last)
        for outcome in reversed(outcomes)
    )
    # The first failure repeats nothing.
    turns = running if (running := _running(same)) > 1 else 0
    return Standstill(turns=turns, after=after, why=f"the same checks have failed for {turns} turns running")


def _same_reasons(outcomes: Sequence[TurnOutcome]) -> Standstill:
    turns = next((most for most in (3, 2) if _alike(outcomes[-most:], most)), 0)
    return Standstill(turns=turns, after=3, why=f"the judge gave the same reason {turns} times running")


def _alike(outcomes: Sequence[TurnOutcome], most: int) -> bool:
    reasons = [outcome.judgement.verdict.reason for outcome in outcomes if outcome.judgement is not None]
    pairs = combinations(reasons, 2)
    return len(reasons) == most and all(similarity(left, right) >= SIMILAR for left, right in pairs)


def similarity(left: str, right: str) -> float:
    """Jaccard index of the word trigrams of two texts; with fewer than three words they have to be equal."""
    if left.split() and left.split() == right.split():
        return 1.0
    first, second = _trigrams(left), _trigrams(right)
    return len(first & second) / len(first | second) if first and second else 0.0


def _trigrams(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False))

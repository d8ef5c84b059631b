"""The fleet as metrics in Prometheus' text format. The home of prometheus_client.

Labels are states, which are few, and accounts, which are bounded: the first ``MOST_ACCOUNTS`` have series of their own.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from goalrun.core.evidence import one_line
from goalrun.core.model import State
from goalrun.fleet.goals import Row
from goalrun.fleet.overview import CheckRun

KIND = CONTENT_TYPE_PLAIN_0_0_4
MOST_ACCOUNTS, NAME_CHARS = 50, 64
OTHERS = "(others)"
QUANTILES = (0.5, 0.9, 1.0)


class Snapshot(NamedTuple):
    """What the metrics are made of.

    Attributes:
        overview: what ``goalrun fleet status --json`` prints.
        queue: goals that wait, and for how many seconds the oldest does.
        accounts: see ``overview.accounts``.
        totals: see ``overview.totals``.
        checks: those that ran last, the slowest first.
    """

    overview: Mapping[str, Any]
    queue: tuple[int, float]
    accounts: list[Row]
    totals: Row
    checks: list[CheckRun]


def text(snapshot: Snapshot) -> str:
    """All metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Read(snapshot))
    return generate_latest(registry).decode("utf-8")


class _Read(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._read = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every metric family, each time from one look at the database."""
        read = self._read
        states = read.overview["states"]
        goals = GaugeMetricFamily("goalrun_fleet_goals", "Goals by state.", labels=["state"])
        for state in ("queued", *(each.value for each in State)):
            goals.add_metric([state], states.get(state, 0))
        yield goals
        yield GaugeMetricFamily(
            "goalrun_fleet_queue_goals", "Goals that wait for a worker or a provider.", read.queue[0]
        )
        oldest = "Time since the oldest of them was submitted."
        yield GaugeMetricFamily("goalrun_fleet_queue_oldest_seconds", oldest, read.queue[1])
        yield from _workers(read.overview["workers"])
        yield from _spend(read.accounts)
        yield CounterMetricFamily("goalrun_fleet_turns", "Turns that were recorded.", read.totals["turns"])
        takeovers = "Goals taken from workers that were silent."
        yield CounterMetricFamily("goalrun_fleet_takeovers", takeovers, read.totals["takeovers"])
        yield from _checks(read.checks)


def _workers(workers: list[Row]) -> Iterator[Metric]:
    alive = [worker for worker in workers if worker["alive"]]
    found = GaugeMetricFamily("goalrun_fleet_workers", "Workers by whether they speak.", labels=["state"])
    found.add_metric(["alive"], len(alive))
    found.add_metric(["silent"], len(workers) - len(alive))
    yield found
    slots = GaugeMetricFamily("goalrun_fleet_slots", "Slots of the workers that are alive.", labels=["state"])
    used = sum(worker["goals"] for worker in alive)
    slots.add_metric(["used"], used)
    slots.add_metric(["free"], sum(worker["slots"] for worker in alive) - used)
    yield slots


def _spend(rows: list[Row]) -> Iterator[Metric]:
    """By account. Those that came late are one: no series may ever change its meaning, or counters would fall."""
    sums: dict[str, dict[str, float]] = {}
    for row in rows:
        name = one_line(row["account"], NAME_CHARS)
        known = name in sums or len(sums) < MOST_ACCOUNTS
        mine = sums.setdefault(
            name if known else OTHERS, dict.fromkeys(("usd", "tokens", "blind_usd", "blind_tokens"), 0)
        )
        for key in mine:
            mine[key] += row[key]
    for key, name, about in (
        ("usd", "goalrun_fleet_spent_usd", "US dollars that agents reported."),
        ("tokens", "goalrun_fleet_spent_tokens", "Tokens that agents reported."),
        ("blind_usd", "goalrun_fleet_runs_without_usd", "Runs that reported no US dollars."),
        ("blind_tokens", "goalrun_fleet_runs_without_tokens", "Runs that reported no tokens."),
    ):
        family = CounterMetricFamily(name, about, labels=["account"])
        for account, mine in sums.items():
            family.add_metric([account], mine[key])
        yield family


def _checks(runs: list[CheckRun]) -> Iterator[Metric]:
    about = "How long checks took, of the goals that were worked on last."
    family = GaugeMetricFamily("goalrun_fleet_check_seconds", about, labels=["quantile"])
    for quantile in QUANTILES if runs else ():
        # The slowest comes first.
        family.add_metric([str(quantile)], runs[round((1 - quantile) * (len(runs) - 1))].seconds)
    yield family

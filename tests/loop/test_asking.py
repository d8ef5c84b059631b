"""Agents that fail, that are limited, that stand in for one another, and that wait."""

from datetime import datetime

import pytest
from fakes import FakeJudge, FakeWorker, Killed, World
from values import JUDGE, RED, changed, goal, judged, spent

from goalrun.core.model import NOTHING_SPENT, Session, State, Usage, WorkerReport
from goalrun.core.ports import AgentFailure, OnProcess, Task
from goalrun.errors import Interrupted

NOW = 1_767_225_600.0
"""The fake clock's first moment, in seconds since the epoch."""
DONE = WorkerReport(outcome="ok", exit_code=0, usage=spent(10), agent="agent")


def limited(reset: float | None = None, usage: Usage | None = NOTHING_SPENT) -> AgentFailure:
    return AgentFailure("claude: 429", kind="limited", reset=reset, usage=usage)


def refused() -> AgentFailure:
    return AgentFailure("claude: bad key", kind="refused", usage=NOTHING_SPENT)


def with_second(world: World) -> FakeWorker:
    """Another agent that stands in for the worker's."""
    second = FakeWorker(world.log, world.store, name="codex")
    world.workers.append(second)
    return second


def test_a_limit_is_sat_out_until_its_reset_and_costs_no_turn() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    world.worker.faults = [limited(reset=NOW + 500)]
    seen: list[State] = []
    idle = world.clock.idle

    def watched(seconds: float) -> None:
        seen.append(world.reporter.shown[-1][1])
        idle(seconds)

    world.clock.idle = watched  # type: ignore[method-assign]
    state = world.run()
    assert (state.status, len(state.turns)) == (State.ACHIEVED, 1)
    assert seen == [State.RATE_LIMITED], "whoever looks meanwhile sees why nothing happens"
    assert world.clock.idled == [501]
    assert world.journal.kinds().count("quota_over") == 1
    assert state.usage.seconds < 500, "waiting is not running"


def test_a_limit_that_ends_between_two_looks_at_the_clock_is_over() -> None:
    world = World(changed(goal(max_turns=1), wait_quota=False), {"base": RED})
    world.worker.faults = [limited(reset=NOW + 500)]
    assert world.run().status is State.RATE_LIMITED
    now = world.clock.now

    def passing() -> datetime:
        world.clock.seconds += 300
        return now()

    world.clock.now = passing  # type: ignore[method-assign]
    assert world.run().status is State.ACHIEVED
    assert world.clock.idled == []


def test_without_a_reset_the_waits_grow_and_are_bounded() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    world.worker.faults = [limited()] * 8
    assert world.run().status is State.ACHIEVED
    assert world.clock.idled == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_who_does_not_want_to_wait_gets_the_reset_and_can_resume() -> None:
    world = World(changed(goal(), wait_quota=False), {"base": RED})
    world.worker.faults = [limited(reset=NOW + 500)]
    state = world.run()
    assert state.status is State.RATE_LIMITED
    assert "asked again at 2026-01-01T00:08:21+00:00" in state.detail
    assert state.turns == ()
    assert world.clock.idled == []
    again = world.run()
    assert again.status is State.RATE_LIMITED, "the limit still stands: nobody is asked"
    assert world.done("worker ") == ["worker 1.1"]
    world.clock.seconds = 502
    assert world.run().status is State.ACHIEVED


def test_asking_to_stop_ends_the_wait() -> None:
    world = World(goal(), {"base": RED})
    world.worker.faults = [limited(reset=NOW + 500)]

    def asked(seconds: float) -> None:
        assert seconds == 501
        raise Interrupted("stop", "asked to stop")

    world.clock.idle = asked  # type: ignore[method-assign]
    assert world.run().status is State.STOPPED


def test_while_one_is_limited_the_next_stands_in_and_the_first_is_not_asked() -> None:
    world = World(goal(max_turns=2), {"base": RED, "tree-1": RED})
    second = with_second(world)
    world.worker.faults = [limited(reset=NOW + 500)]
    state = world.run()
    assert state.status is State.ACHIEVED
    assert world.done("worker ") == ["worker 1.1", "worker 1.2 codex", "worker 2.1 codex"]
    assert (len(second.tasks), world.clock.idled) == (2, [])


def test_the_first_is_asked_again_once_its_limit_is_over() -> None:
    world = World(goal(max_turns=2), {"base": RED, "tree-1": RED})
    second = with_second(world)
    world.worker.faults = [limited(reset=NOW + 500)]
    second.answers = [DONE]
    run = second.run

    def slow(task: Task, on_process: OnProcess) -> WorkerReport:
        world.clock.seconds += 600
        return run(task, on_process)

    second.run = slow  # type: ignore[method-assign]
    assert world.run().status is State.ACHIEVED
    assert world.done("worker ") == ["worker 1.1", "worker 1.2 codex", "worker 2.1"]


def test_where_all_are_limited_the_first_reset_counts() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    second = with_second(world)
    world.worker.faults = [limited(reset=NOW + 900)]
    second.faults = [limited(reset=NOW + 300)]
    assert world.run().status is State.ACHIEVED
    assert world.clock.idled == [301]
    assert world.done("worker ")[-1] == "worker 1.3 codex"


def test_a_refused_key_is_not_tried_again_but_the_next_agent_is() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    with_second(world)
    world.worker.faults = [refused()]
    assert world.run().status is State.ACHIEVED
    assert world.done("worker ") == ["worker 1.1", "worker 1.2 codex"]
    alone = World(goal(max_turns=1), {"base": RED})
    alone.worker.faults = [refused()]
    state = alone.run()
    assert (state.status, state.detail, len(state.turns)) == (State.ERROR, "claude: bad key", 0)
    assert alone.done("worker ") == ["worker 1.1"]


def test_what_a_failed_agent_spent_and_left_is_kept() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    failure = AgentFailure("codex: 500", usage=spent(7))
    world.worker.faults = [failure]
    state = world.run()
    assert state.status is State.ACHIEVED
    assert state.usage.total_tokens == 17
    assert "snapshot turn-1-interrupted-1" in world.log
    assert "codex: 500" in world.worker.prompts[1], "the next run is told that files were edited before"


def test_a_failure_whose_spend_nobody_tells_makes_the_spend_unknown() -> None:
    world = World(goal(max_turns=5, max_tokens=1000), {"base": RED})
    world.worker.faults = [AgentFailure("codex: 500")]
    state = world.run()
    assert (state.status, state.usage.total_tokens) == (State.ACHIEVED, None)
    world = World(goal(max_turns=5, max_tokens=1000), {"base": RED, "tree-1": RED})
    world.worker.faults = [AgentFailure("codex: 500")]
    assert world.run().status is State.BUDGET_EXCEEDED
    world = World(goal(max_turns=5, max_tokens=1000, allow_unknown_spend=True), {"base": RED, "tree-1": RED})
    world.worker.faults = [AgentFailure("codex: 500")]
    assert world.run().status is State.ACHIEVED


def test_a_limited_judge_is_waited_for_and_the_worker_is_not_paid_again() -> None:
    world = World(goal(judge=JUDGE, max_turns=1), {"base": RED})
    world.judge.faults = [limited(reset=NOW + 50)]
    state = world.run()
    assert state.status is State.ACHIEVED
    assert (len(world.done("worker ")), len(world.done("judge "))) == (1, 2)


def test_a_worker_of_a_limited_name_is_not_asked_either() -> None:
    """The quota is the account's, not the role's."""
    world = World(goal(judge=JUDGE, max_turns=2), {"base": RED})
    world.judge.name = "agent"
    world.judge.faults = [limited(reset=NOW + 50)]
    world.judge.answers = {"turn-1": judged(reason="not yet", usage=spent(1))}
    assert world.run().status is State.ACHIEVED
    assert world.clock.idled == [51]


@pytest.mark.parametrize("first", [True, False])
def test_two_judges_have_to_agree(first: bool) -> None:  # noqa: FBT001
    world = World(goal(judge=JUDGE, max_turns=1), {"base": RED})
    second = FakeJudge(world.log, name="second")
    world.judges.append([second])
    no = judged(reason="a file is missing", usage=spent(1))
    (world.judge if first else second).answers = {"turn-1/judge-1": no, "turn-1/judge-2": no}
    state = world.run()
    assert state.status is State.MAX_TURNS
    judgement = state.turns[0].outcome.judgement
    assert judgement is not None
    assert "a file is missing" in judgement.verdict.reason
    assert len(world.done("judge ")) == (1 if first else 2), "one no is enough"
    agreed = World(goal(judge=JUDGE, max_turns=1), {"base": RED})
    agreed.judges.append([FakeJudge(agreed.log, name="second")])
    state = agreed.run()
    assert state.status is State.ACHIEVED
    assert state.usage.total_tokens == 12, "both judges are paid for"


def test_a_worker_that_waits_for_a_time_burns_no_turn() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    world.worker.answers = [DONE.model_copy(update={"wait_for": "10m"}), DONE]
    state = world.run()
    assert (state.status, len(state.turns)) == (State.ACHIEVED, 1)
    assert sum(world.clock.idled) == 600
    assert state.usage.total_tokens == 20
    assert "you asked to wait for: 10m; that is over" in world.worker.prompts[1]


def test_a_worker_that_waits_for_a_command_is_called_when_it_succeeds() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    world.worker.answers = [DONE.model_copy(update={"wait_for": "test -f done"}), DONE]
    world.worker.tries = [False, False, False, True]
    assert world.run().status is State.ACHIEVED
    assert world.clock.idled == [5, 10, 20]
    assert world.done("try ") == ["try 1 test -f done"] * 4


def test_a_crash_while_a_command_is_waited_for_keeps_the_wait_and_the_spend() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    world.worker.answers = [DONE.model_copy(update={"wait_for": "test -f done"}), DONE]
    world.worker.tries = [False, True]
    idle = world.clock.idle

    def killed(seconds: float) -> None:
        world.clock.idle = idle  # type: ignore[method-assign]
        assert seconds == 5
        raise Killed

    world.clock.idle = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        world.run()
    state = world.run()
    assert (state.status, state.usage.total_tokens) == (State.ACHIEVED, 20)
    assert len(world.done("try ")) == 2


def test_waiting_for_ever_is_a_turn_like_any_other() -> None:
    world = World(goal(max_turns=1), {"base": RED, "tree-1": RED})
    world.worker.answers = [DONE.model_copy(update={"wait_for": "1s"})] * 30
    state = world.run()
    assert state.status is State.MAX_TURNS
    assert len(world.done("worker ")) == 11


@pytest.mark.parametrize("kill_at", range(6, 22))
def test_a_crash_while_waiting_loses_nothing(kill_at: int) -> None:
    world = World(goal(max_turns=1), {"base": RED})
    world.worker.faults = [limited(reset=NOW + 500)]
    world.worker.answers = [DONE.model_copy(update={"wait_for": "10m"}), DONE]
    try:
        state = world.run(kill_at=kill_at)
    except Killed:
        state = world.run()
    assert state.status is State.ACHIEVED
    # One of the two is not known to the second run where it was killed before that was recorded.
    assert sum(world.clock.idled) >= 500


def test_a_session_and_what_remains_of_the_money_are_handed_on() -> None:
    world = World(goal(max_turns=3, max_usd=1.0), {"base": RED, "tree-1": RED})
    usage = Usage(input_tokens=1, output_tokens=1, total_tokens=2, usd=0.25)
    first = DONE.model_copy(update={"session": Session(id="s1"), "usage": usage})
    world.worker.answers = [first, DONE]
    world.run()
    assert [task.session for task in world.worker.tasks] == [None, Session(id="s1")]
    assert [task.usd for task in world.worker.tasks] == [1.0, 0.75]

import pytest
from fakes import SECRET, Killed, World
from hypothesis import given
from hypothesis import strategies as st
from values import JUDGE, RED, changed, checked, goal, judged, reported, spent

from goalrun.core.events import JudgementFinished, TurnInterrupted, WorkerEnded
from goalrun.core.model import (
    NOTHING_SPENT,
    GoalState,
    Session,
    Snapshot,
    State,
    TurnRecord,
    VerificationReport,
    WorkerReport,
)
from goalrun.core.ports import AgentFailure
from goalrun.core.replay import fold
from goalrun.core.spec import Limits
from goalrun.errors import EnvironmentFailure, GitFailed, Interrupted, ProcessFailure

LOST = AgentFailure("agent is missing", hint="install it", usage=NOTHING_SPENT)
STOP = Interrupted("stop", "goalrun stop")
PAUSE = Interrupted("pause", "goalrun pause")
RED_B = reported(checked("fail", failing=("test_b",)))


def red_world() -> World:
    """Base and turn 1 are red, turn 2 is green, but the judge wants a third turn."""
    world = World(goal(judge=JUDGE), {"base": RED, "tree-1": RED_B})
    world.judge.answers = {"turn-2": judged(reason="one case is missing", usage=spent(1))}
    return world


def outcome_of(state: GoalState) -> tuple[State, str, tuple[TurnRecord, ...], Snapshot | None, str]:
    return state.status, state.detail, state.turns, state.last_snapshot, state.feedback


def test_every_step_is_recorded_before_the_next_one_begins() -> None:
    world = World(goal(judge=JUDGE), {"base": RED})
    assert world.run().status is State.ACHIEVED
    assert world.log == [
        "goal_created", "run_started",
        "snapshot base", "base_taken",
        "verify base", "process_started", "base_verified",
        "turn_started", "worker 1.1", "process_started", "worker_ended",
        "snapshot turn-1", "worker_finished",
        "verify turn-1", "process_started", "verification_finished",
        "judge turn-1", "process_started", "judgement_finished",
        "turn_finished",
    ]  # fmt: skip


def test_the_state_of_the_loop_is_the_fold_of_its_journal_and_every_record_is_shown() -> None:
    world = red_world()
    state = world.run()
    assert state == fold(world.journal.records)
    # The creation and the start of the run are not the loop's own.
    assert [seq for seq, _ in world.reporter.shown] == list(range(3, len(world.journal.records) + 1))
    assert world.reporter.shown[-1] == (len(world.journal.records), State.ACHIEVED)


def test_turns_go_on_until_checks_and_judge_agree() -> None:
    world = red_world()
    state = world.run()
    assert [record.decision for record in state.turns] == ["continue", "continue", "achieved"]
    assert state.usage.total_tokens == 3 * 10 + 2 * 1
    assert "test_a" in world.worker.prompts[0]
    assert "test_b" in world.worker.prompts[1]
    assert "one case is missing" in world.worker.prompts[2]


def test_the_judge_is_not_asked_about_red_checks() -> None:
    world = red_world()
    world.run()
    assert world.done("judge ") == ["judge turn-2", "judge turn-3"]


def test_the_judge_is_not_asked_about_a_tampered_turn() -> None:
    world = World(goal(judge=JUDGE, max_turns=1), {"base": RED, "tree-1": reported(checked(), edits=["tests/t.py"])})
    assert world.run().status is State.MAX_TURNS
    assert world.done("judge ") == []


def test_secrets_in_the_diff_do_not_reach_the_judge() -> None:
    world = World(goal(judge=JUDGE), {"base": RED})
    world.store.patch = f"+ key = {SECRET}"
    world.run()
    assert SECRET not in world.judge.briefs[0]
    assert "[redacted]" in world.judge.briefs[0]


LENGTH = len(red_world().run_through())


@pytest.mark.parametrize("place", range(3, LENGTH + 2))
def test_killed_at_any_record_a_resume_ends_the_same_and_repeats_nothing_recorded(place: int) -> None:
    reference = red_world()
    reference.run()
    world = red_world()
    if place <= LENGTH:
        with pytest.raises(Killed):
            world.run(kill_at=place)
    else:
        world.run()
    prefix = list(world.journal.records)
    assert [r.event for r in prefix] == [r.event for r in reference.journal.records[: place - 1]]
    world.log.clear()
    assert outcome_of(world.run()) == outcome_of(reference.state)
    for record in prefix:
        match record.event.kind, getattr(record.event, "turn", 0):
            case "worker_ended", turn:
                assert not world.done(f"worker {turn}.")
            case "worker_finished", turn:
                assert f"snapshot turn-{turn}" not in world.log
            case "verification_finished", turn:
                assert f"verify turn-{turn}" not in world.log
            case "judgement_finished", turn:
                assert f"judge turn-{turn}" not in world.log
            case "base_taken", _:
                assert "snapshot base" not in world.log
            case "base_verified", _:
                assert "verify base" not in world.log
            case _:
                pass
    # At most the one worker that was running when the process died runs a second time.
    assert len(world.worker.prompts) <= len(reference.worker.prompts) + 1


@given(st.lists(st.integers(min_value=1, max_value=12), max_size=6))
def test_killed_again_and_again_the_end_is_the_same_and_no_recorded_worker_runs_twice(steps: list[int]) -> None:
    reference = red_world()
    reference.run()
    world = red_world()
    for step in steps:
        try:
            # Beyond the RunStarted, so that each run gets somewhere.
            world.run(kill_at=len(world.journal.records) + 1 + step)
        except Killed:
            continue
    assert outcome_of(world.run()) == outcome_of(reference.state)
    finished = [r.event.turn for r in world.journal.records if isinstance(r.event, WorkerEnded)]
    assert finished == [1, 2, 3]


def test_a_worker_that_a_crash_cut_has_its_edits_in_a_snapshot_before_it_runs_again() -> None:
    world = World(goal(), {"base": RED})
    with pytest.raises(Killed):
        world.run(kill_at=8)  # the record after the worker's process
    assert world.journal.kinds()[-1] == "process_started"
    world.log.clear()
    assert world.run().status is State.ACHIEVED
    assert world.log[:6] == [
        "run_started", "snapshot turn-1-interrupted-1", "cut 1.1 fresh", "turn_interrupted", "turn_started",
        "worker 1.2",
    ]  # fmt: skip
    cut = next(r.event for r in world.journal.records if isinstance(r.event, TurnInterrupted))
    assert cut.snapshot.tree == "tree-1"
    assert "cut before" in world.worker.prompts[1]
    assert "cut before" not in world.worker.prompts[0]


def test_a_judge_that_fails_is_an_error_not_a_verdict() -> None:
    world = World(goal(judge=JUDGE), {"base": RED})
    world.judge.faults = [AgentFailure("no readable answer", hint="try -j none")]
    state = world.run()
    assert (state.status, state.turns) == (State.ERROR, ())
    assert state.detail == "no readable answer; try -j none"
    # Nothing that was paid for is done again.
    world.log.clear()
    assert world.run().status is State.ACHIEVED
    assert world.done("worker") == []
    assert world.done("verify ") == []
    assert world.done("judge ") == ["judge turn-1"]


def test_a_worker_that_cannot_run_is_tried_again_and_uses_up_no_turn() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    world.worker.faults = [LOST, LOST]
    state = world.run()
    assert (state.status, len(state.turns)) == (State.ACHIEVED, 1)
    assert world.done("worker ") == ["worker 1.1", "worker 1.2", "worker 1.3"]
    assert world.journal.kinds().count("agent_failed") == 2
    assert len(world.clock.slept) == 2
    assert 0 < world.clock.slept[0] < world.clock.slept[1]
    assert state.usage.total_tokens == 10


def test_a_worker_that_never_runs_ends_in_error_and_can_be_resumed() -> None:
    world = World(goal(max_turns=1), {"base": RED})
    world.worker.faults = [LOST, LOST, LOST]
    state = world.run()
    assert (state.status, state.turns, state.detail) == (State.ERROR, (), "agent is missing; install it")
    assert world.run().status is State.ACHIEVED


def test_checks_and_snapshots_that_cannot_be_made_are_tried_again_without_running_the_worker_again() -> None:
    world = World(goal(), {"base": RED})
    world.store.faults = [GitFailed("disk full")]
    world.verifier.faults = [EnvironmentFailure("no worktree")]
    assert world.run().status is State.ACHIEVED
    assert world.done("snapshot base") == ["snapshot base"] * 2
    assert world.done("verify base") == ["verify base"] * 2
    assert world.done("worker ") == ["worker 1.1"]


@pytest.mark.parametrize(("asked", "ends"), [(STOP, State.STOPPED), (PAUSE, State.PAUSED)])
def test_an_interrupted_worker_is_recorded_as_cut_and_runs_again_on_resume(asked: Interrupted, ends: State) -> None:
    world = World(goal(), {"base": RED})
    world.worker.faults = [asked]
    state = world.run()
    assert (state.status, state.detail, state.turns) == (ends, str(asked), ())
    assert world.journal.kinds()[-2:] == ["turn_interrupted", "goal_stopped"]
    assert state.usage.total_tokens is None
    assert world.run().status is State.ACHIEVED
    assert world.done("worker ") == ["worker 1.1", "worker 1.2"]


def test_a_stop_between_turns_cuts_nothing() -> None:
    world = World(goal(), {"base": RED, "tree-1": RED})
    world.control.faults = [None, STOP]
    state = world.run()
    assert (state.status, len(state.turns)) == (State.STOPPED, 1)
    assert "turn_interrupted" not in world.journal.kinds()


def test_a_stop_during_the_checks_keeps_the_finished_worker() -> None:
    world = World(goal(), {"base": RED})
    world.verifier.faults = [None, STOP]
    assert world.run().status is State.STOPPED
    assert "turn_interrupted" not in world.journal.kinds()
    assert world.run().status is State.ACHIEVED
    assert world.done("worker ") == ["worker 1.1"]


def test_edits_of_a_cut_turn_that_cannot_be_kept_now_are_kept_on_resume() -> None:
    world = World(goal(), {"base": RED})
    world.worker.faults = [PAUSE]
    world.store.faults = [None, GitFailed("disk full")]
    state = world.run()
    assert state.status is State.PAUSED
    assert "disk full" in state.detail
    assert "turn_interrupted" not in world.journal.kinds()
    assert world.run().status is State.ACHIEVED
    assert world.done("snapshot turn-1-interrupted") == ["snapshot turn-1-interrupted-1"] * 2
    assert "turn_interrupted" in world.journal.kinds()


def test_a_stop_during_a_wait_before_a_retry_ends_the_goal() -> None:
    world = World(goal(), {"base": RED})
    world.worker.faults = [LOST, STOP]
    assert world.run().status is State.STOPPED
    assert world.done("worker ") == ["worker 1.1", "worker 1.2"]


def test_a_base_that_passes_ends_the_goal_before_anybody_is_paid() -> None:
    world = World(goal())
    state = world.run()
    assert (state.status, state.turns, world.done("worker ")) == (State.ACHIEVED, (), [])
    assert "already passes" in state.detail


@pytest.mark.parametrize(
    "base",
    [
        RED,
        reported(outcome="pass"),
        reported(checked("pass", command="something else")),
        reported(checked(), outcome="error"),
        reported(checked(), edits=["tests/t.py"]),
    ],
)
def test_a_base_without_proof_does_not_pass(base: VerificationReport) -> None:
    world = World(goal(), {"base": base})
    assert len(world.run().turns) == 1


def test_a_base_that_passes_is_not_enough_where_the_judge_objects() -> None:
    world = World(goal(judge=JUDGE))
    world.judge.answers = {"base": judged(reason="no")}
    state = world.run()
    assert (state.status, len(state.turns)) == (State.ACHIEVED, 1)
    assert world.done("judge ") == ["judge base", "judge turn-1"]


def test_force_runs_the_worker_on_a_base_that_passes() -> None:
    world = World(changed(goal(judge=JUDGE), force=True))
    state = world.run()
    assert (state.status, len(state.turns)) == (State.ACHIEVED, 1)
    assert world.done("judge ") == ["judge turn-1"]


def test_without_checks_the_judge_alone_decides_and_the_base_is_not_verified() -> None:
    world = World(goal(checks=(), judge=JUDGE), {"tree-1": reported(outcome="weak_pass")})
    state = world.run()
    assert (state.status, len(state.turns), world.done("verify ")) == (State.ACHIEVED, 1, ["verify turn-1"])


def test_a_pause_after_the_turn_waits_for_its_end_and_is_answered_once() -> None:
    world = World(goal(), {"base": RED, "tree-1": RED_B})
    world.control.step = True
    state = world.run()
    assert (state.status, len(state.turns)) == (State.PAUSED, 1)
    assert world.run().status is State.ACHIEVED


def test_a_pause_after_the_turn_does_not_take_an_end_away() -> None:
    world = World(goal(), {"base": RED})
    world.control.step = True
    assert world.run().status is State.ACHIEVED


def test_a_hint_is_in_one_turn_s_prompt_once() -> None:
    world = World(goal(), {"base": RED, "tree-1": RED_B})
    world.control.given = ["look at line 7"]
    world.run()
    assert [prompt.count("look at line 7") for prompt in world.worker.prompts] == [1, 0]
    assert world.control.given == []


def test_a_hint_survives_a_crash_between_recording_and_forgetting_it_and_is_still_told_once() -> None:
    world = World(goal(), {"base": RED})
    world.control.given = ["look at line 7"]
    world.worker.faults = [LOST]
    world.run()
    recorded = next(place for place, kind in enumerate(world.journal.kinds(), start=1) if kind == "turn_started")
    again = World(goal(), {"base": RED})
    again.journal.records.extend(world.journal.records[1:recorded])
    again.control.given = ["look at line 7"]
    again.run()
    assert [prompt.count("look at line 7") for prompt in again.worker.prompts] == [1]
    assert again.control.given == []


def test_a_hint_of_a_cut_turn_is_told_again_when_the_turn_is() -> None:
    world = World(goal(), {"base": RED})
    world.control.given = ["look at line 7"]
    world.worker.faults = [PAUSE]
    world.run()
    world.run()
    assert [prompt.count("look at line 7") for prompt in world.worker.prompts] == [1, 1]


def test_a_worker_that_failed_has_had_its_turn() -> None:
    world = World(goal(), {"base": RED})
    world.worker.reports = {1: WorkerReport(outcome="failed", exit_code=3)}
    state = world.run()
    assert (state.status, len(state.turns)) == (State.ACHIEVED, 1)


def test_a_budget_that_is_used_up_pays_nobody_on_resume_until_it_is_raised() -> None:
    world = World(goal(max_tokens=5), {"base": RED, "tree-1": RED_B})
    assert world.run().status is State.BUDGET_EXCEEDED
    assert world.run().status is State.BUDGET_EXCEEDED
    assert world.done("worker ") == ["worker 1.1"]
    assert world.run(limits=Limits(max_tokens=100)).status is State.ACHIEVED


def test_the_worker_gets_no_more_time_than_the_turn_and_the_goal_have() -> None:
    world = World(goal(turn_timeout=50, max_time=20), {"base": RED})
    world.run()
    assert [task.timeout for task in world.worker.tasks] == [20]


def test_protected_edits_are_put_back_only_where_that_was_asked_for() -> None:
    world = World(changed(goal(), protected_edits="restore"), {"base": RED})
    world.run()
    assert world.done("snapshot turn") == ["snapshot turn-1 restored"]


def test_the_session_and_the_spend_of_a_run_that_a_crash_cut_are_known_from_its_output() -> None:
    world = World(goal(), {"base": RED})
    whole = world.run_through()
    place = next(record.seq for record in whole if isinstance(record.event, WorkerEnded))
    world = World(goal(), {"base": RED})
    with pytest.raises(Killed):
        world.run(kill_at=place)
    world.worker.heard = (spent(7), Session(id="s1"))
    state = world.run()
    assert state.status is State.ACHIEVED
    assert world.done("cut ") == ["cut 1.1 fresh"]
    assert [task.session for task in world.worker.tasks] == [None, Session(id="s1")]
    assert state.usage.total_tokens == 17


def test_a_run_that_a_pause_cut_goes_on_with_its_session() -> None:
    world = World(goal(), {"base": RED})
    world.worker.faults = [PAUSE]
    world.worker.heard = (None, Session(id="s1"))
    assert world.run().status is State.PAUSED
    assert world.run().usage.total_tokens is None
    assert [task.session for task in world.worker.tasks] == [None, Session(id="s1")]


def test_a_worker_whose_supervisor_is_lost_is_cut_and_its_spend_unknown() -> None:
    world = World(goal(), {"base": RED})
    world.worker.faults = [ProcessFailure("the supervisor of a command was killed")]
    state = world.run()
    assert (state.status, state.usage.total_tokens) == (State.ACHIEVED, None)
    assert world.done("snapshot turn-1-interrupted") == ["snapshot turn-1-interrupted-1"]


def test_what_a_judge_spent_that_a_crash_cut_is_unknown() -> None:
    world = World(goal(judge=JUDGE), {"base": RED})
    place = next(record.seq for record in world.run_through() if isinstance(record.event, JudgementFinished))
    world = World(goal(judge=JUDGE), {"base": RED})
    with pytest.raises(Killed):
        world.run(kill_at=place)
    state = world.run()
    assert (state.status, state.usage.total_tokens) == (State.ACHIEVED, None)


def test_what_a_judge_spent_whose_supervisor_is_lost_is_unknown() -> None:
    world = World(goal(judge=JUDGE), {"base": RED})
    world.judge.faults = [ProcessFailure("the supervisor of a command was killed")]
    state = world.run()
    assert (state.status, state.usage.total_tokens) == (State.ACHIEVED, None)


def test_what_an_agent_left_that_failed_is_a_snapshot_also_after_a_crash_and_its_spend_is_counted_once() -> None:
    def failing() -> World:
        world = World(goal(), {"base": RED})
        world.worker.faults = [AgentFailure("down", usage=spent(5))]
        return world

    place = next(record.seq for record in failing().run_through() if isinstance(record.event, TurnInterrupted))
    world = failing()
    with pytest.raises(Killed):
        world.run(kill_at=place)
    assert world.journal.kinds()[-1] == "agent_failed"
    world.worker.heard = (spent(5), None)
    state = world.run()
    assert (state.status, state.usage.total_tokens) == (State.ACHIEVED, 15)
    assert [r.event.reason for r in world.journal.records if isinstance(r.event, TurnInterrupted)] == ["down"]

"""Groups against real processes: who wins, where the files go, and what is not paid for twice."""

import json
import signal
from pathlib import Path

from flows.groups import CHECK, RIGHT, group, put, run, step_of, until
from support import CHEAT_WORKER, GOOD_WORKER, Program, finish, git, running, wait_until, write
from support import CHECK as TESTS

from goalrun.adapters.journal import replay
from goalrun.adapters.views import JOURNAL
from goalrun.core.flow.model import Result
from goalrun.flows.groups import NO_SCORE, score_of

LINES = "".join(f"line {number}\n" for number in range(20))


def test_a_score_is_the_number_in_the_last_line() -> None:
    assert score_of(Result(status="done", text="warming up\n 4.5\n\n")) == 4.5
    for text in ("", "fast", "nan"):
        assert score_of(Result(status="done", text=text)) == NO_SCORE
    assert score_of(Result(status="failed", text="9")) == NO_SCORE


def test_best_ranks_by_score_then_by_the_smaller_diff(program: Program) -> None:
    members = {
        "long": RIGHT + "; seq 50 > extra.txt; echo 2 > speed",
        "short": RIGHT + "; echo 2 > speed",
        "slow": RIGHT + "; echo 1 > speed",
        "odd": RIGHT + "; echo fast > speed",
    }
    step = step_of(run(program, group(members, pick="best", score="cat speed")))
    assert step["winner"] == "short"
    assert "its score is no number: fast" in step["members"]["odd"]["reason"]
    assert {each["status"] for each in step["members"].values()} == {"done"}


def test_members_begin_with_edits_that_are_not_committed_and_setup_runs_first(program: Program) -> None:
    flow = group({"a": "test -e made.txt && cat draft.txt; " + RIGHT}, setup="touch made.txt")
    put(program, flow)
    write(program.cwd, {"draft.txt": "a draft\n"})
    done = program.run("flow", "run", "f", "--json")
    assert step_of(done)["text"] == "a draft\nmine"


def test_a_setup_that_fails_fails_its_member(program: Program, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    done = run(program, group({"a": f"touch {asked}; {RIGHT}"}, setup="echo no network; exit 1"))
    assert done.code == 14
    assert "its setup failed" in step_of(done)["reason"]
    assert not asked.exists()


def _beside(program: Program, tmp_path: Path, line: str) -> tuple[dict[str, object], Path]:
    """A member that works while another step changes the first line of a file."""
    write(program.cwd, {"text.txt": LINES})
    begun, moved = tmp_path / "begun", tmp_path / "moved"
    flow = group({"a": f"touch {begun}; {until(moved)}; sed -i '{line}s/.*/theirs/' text.txt; {RIGHT}"})
    other = ["bash", "-c", f"{until(begun)}; sed -i '1s/.*/ours/' text.txt; touch {moved}"]
    flow["step"].insert(0, {"id": "other", "run": other})
    return flow, program.home / "goals"


def test_a_winner_is_merged_into_a_workspace_that_has_moved(program: Program, tmp_path: Path) -> None:
    flow, _ = _beside(program, tmp_path, "20")
    assert run(program, flow).code == 0
    lines = (program.cwd / "text.txt").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("ours", "theirs")


def test_a_conflict_is_blocked_and_nothing_is_lost(program: Program, tmp_path: Path) -> None:
    flow, goals = _beside(program, tmp_path, "1")
    done = run(program, flow)
    assert done.code == 6
    assert "text.txt" in step_of(done)["reason"]
    assert (program.cwd / "text.txt").read_text().startswith("ours\n")
    assert not (program.cwd / "result.txt").exists()
    store = goals / done.json["id"] / "store.git"
    assert git(store, "show", "refs/goalrun/turn-1-member-fix-a:text.txt").startswith("theirs\n")


def test_after_a_kill_a_finished_member_is_not_paid_for_again(program: Program, tmp_path: Path) -> None:
    paid, go = tmp_path / "paid", tmp_path / "go"
    members = {"quick": f"echo quick >> {paid}; {RIGHT}", "late": f"echo late >> {paid}; {until(go)}; echo nothing"}
    put(program, group(members, pick="best"))
    process = program.spawn("flow", "run", "f")
    goals = program.home / "goals"

    def finished() -> bool:
        both = paid.exists() and sorted(paid.read_text().split()) == ["late", "quick"]
        return both and bool(replay(next(goals.glob(f"f-*/{JOURNAL}"))).flow.calls)

    wait_until(finished, "one member is over, and the other one works")
    process.send_signal(signal.SIGKILL)
    finish(process)
    go.touch()
    done = program.run("resume", "--json")
    assert (done.code, step_of(done)["winner"]) == (0, "quick")
    assert sorted(paid.read_text().split()) == ["late", "late", "quick"]
    assert (program.cwd / "result.txt").read_text() == "right\n"


def test_side_by_side_members_share_the_workspace_and_one_that_fails_fails_the_step(program: Program) -> None:
    flow = group({"a": "echo from a | tee a.txt", "b": "touch b.txt; exit 3"}, strategy="all", check=None)
    done = run(program, flow)
    step = step_of(done)
    assert (done.code, step["status"]) == (14, "failed")
    assert step["text"].startswith("### [1/2] a\n\nfrom a")
    assert "### [2/2] b (failed)" in step["text"]
    assert (program.cwd / "a.txt").exists()
    assert (program.cwd / "b.txt").exists()


def test_a_step_with_checks_is_tried_until_they_pass_and_told_what_failed(program: Program, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    line = f"cat >> {heard}; if [ -e result.txt ]; then {RIGHT}; else echo wrong > result.txt; echo done; fi"
    step = {"id": "fix", "agent": "a", "prompt": "Fix it.", "check": [CHECK], "max_turns": 3}
    done = run(program, {"agents": {"a": {"run": line}}, "step": [step]})
    assert (done.code, step_of(done)["attempts"]) == (0, 2)
    first, second = heard.read_text().split("Fix it.")[1:]
    assert first == ""
    assert f"Check failed: {CHECK}" in second


def test_a_step_whose_checks_never_pass_is_failed_whatever_it_says(program: Program) -> None:
    step = {"id": "fix", "agent": "a", "prompt": "Fix it.", "check": [CHECK], "max_turns": 2}
    done = run(program, {"agents": {"a": {"run": "echo it is done"}}, "step": [step]})
    assert (done.code, step_of(done)["attempts"]) == (14, 2)
    assert CHECK in step_of(done)["reason"]


def test_a_step_in_a_worktree_of_its_own_brings_its_files_back(program: Program) -> None:
    step = {"id": "fix", "agent": "a", "prompt": "Fix it.", "workspace": "worktree"}
    done = run(program, {"agents": {"a": {"run": "pwd; " + RIGHT}}, "step": [step]})
    assert (done.code, step_of(done)["members"]) == (0, {})
    assert str(program.cwd) not in step_of(done)["text"]
    assert (program.cwd / "result.txt").read_text() == "right\n"


def _with_agents(program: Program, **lines: str) -> None:
    agents = "".join(f"[agents.{name}]\ncommand = ['bash', '-c', {json.dumps(line)}]\n" for name, line in lines.items())
    write(program.home.parent / "config" / "goalrun", {"config.toml": agents})


def test_several_workers_compete_for_a_goal(program: Program) -> None:
    _with_agents(program, cheat=CHEAT_WORKER + "; touch cheat.txt", good="cat > prompt.txt; " + GOOD_WORKER)
    done = program.run(
        "start", "make tests pass", "-w", "cheat", "-w", "good", "--strategy", "compete", "-c", TESTS, "--json"
    )
    assert (done.code, done.json["state"], done.json["turns"]) == (0, "achieved", 1)
    told = (program.cwd / "prompt.txt").read_text()
    assert "# Goal\n\nmake tests pass" in told
    assert "test_discount" in told
    assert git(program.cwd, "status", "--porcelain").split() == ["M", "shop.py", "??", "prompt.txt"]


def test_several_workers_are_put_together_by_the_first(program: Program) -> None:
    lead = f"if grep -q 'You lead a group' ; then {GOOD_WORKER}; else touch draft.txt; fi; echo done"
    _with_agents(program, lead=lead, other="echo a thought; touch other.txt")
    workers = ("-w", "lead", "-w", "other", "--strategy", "synthesize")
    done = program.run("start", "make tests pass", *workers, "-c", TESTS, "--json")
    assert (done.code, done.json["state"]) == (0, "achieved"), done.err
    assert git(program.cwd, "status", "--porcelain").split() == ["M", "shop.py"]


def test_what_is_missing_for_several_workers_is_said_in_one_line(program: Program) -> None:
    _with_agents(program, a="true", b="true")
    said = [
        program.run("start", "x", "-c", "true", *words).err.splitlines()[0]
        for words in (
            ("-w", "a", "-w", "b"),
            ("-w", "a", "--strategy", "compete"),
            ("-w", "a", "-w", "b", "--strategy", "vote"),
        )
    ]
    assert said == [
        "goalrun: workers are given, and no strategy",
        "goalrun: --strategy compete needs several workers",
        "goalrun: command line: strategy: must be 'compete' or 'synthesize'",
    ]


def test_competing_without_a_check_is_refused_where_no_goal_has_one(program: Program) -> None:
    flow = group({"a": RIGHT, "b": "true"}, check=None)
    done = run(program, flow)
    assert done.code == 2
    assert "step 'fix': members that compete need a check" in done.err
    assert program.goals() == []
    wrapped = program.run("wrap", "f", "make it right", "-c", CHECK, "--json")
    assert (wrapped.code, wrapped.json["turns"]) == (0, 1)


def test_a_pause_ends_every_member_and_resume_goes_on(program: Program, tmp_path: Path) -> None:
    begun, go, marker = tmp_path / "begun", tmp_path / "go", "27182.8182"
    line = f"if [ ! -e {go} ]; then echo x >> {begun}; sleep {marker}; fi; {RIGHT}"
    put(program, group({"a": line, "b": line}))
    process = program.spawn("flow", "run", "f", "--json")
    wait_until(lambda: begun.exists() and len(begun.read_text().split()) == 2, "both work")
    assert program.run("pause").code == 0
    assert finish(process).code == 130
    assert not running(marker)
    assert not (program.cwd / "result.txt").exists()
    go.touch()
    assert program.run("resume", "--json").code == 0
    assert (program.cwd / "result.txt").exists()

"""Any command as a worker: what it gets, and what becomes of what it says."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from adapters.goals import GOAL, alive, goal_spec, pids_in, unrecorded

from goalrun.adapters.agents.call import Means, shell_command
from goalrun.adapters.worker import AgentWorker
from goalrun.core.model import ProcessIdentity, Session, WorkerReport
from goalrun.core.ports import WORKER_TEXT_CHARS, AgentFailure, Task
from goalrun.core.spec import AgentSpec
from goalrun.errors import EnvironmentFailure, Interrupted

PROMPT = "# Göal\n\n$(do not run) `this`\n"


@pytest.fixture
def top(user: Path) -> Path:
    """A workspace."""
    (user / "ws" / "sub").mkdir(parents=True)
    return user / "ws"


class Desk:
    """A goal's worker, run for a turn."""

    def __init__(
        self,
        top: Path,
        *command: str,
        subfolder: str = "",
        blocked_line: str | None = None,
        env: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
    ) -> None:
        argv = shell_command(command[0]) if len(command) == 1 else command
        worker = AgentSpec(name="agent", command=argv, blocked_line=blocked_line, env=env or {})
        spec = goal_spec(top, worker=worker, subfolder=subfolder)
        self.top, self.folder = top, top.parents[1] / "goal"
        mine = environment or {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
        self.worker = AgentWorker(worker, spec, self.folder, None, Means(mine, secrets, lambda: None))

    def run(self, turn: int = 1, attempt: int = 1, timeout: float = 60) -> WorkerReport:
        """Run a turn."""
        return self.worker.run(Task(PROMPT, turn, attempt, timeout), unrecorded)

    def stored(self, report: WorkerReport, name: str) -> str:
        """A file of the transcript."""
        return (self.folder / report.transcript / name).read_text("utf-8")


def test_a_worker_gets_the_prompt_twice_the_goals_variables_and_the_users_own(top: Path) -> None:
    body = 'cat > in; cat "$GOALRUN_PROMPT_FILE" > file; env > env; pwd; ls -l "$GOALRUN_PROMPT_FILE" | cut -c-10'
    desk = Desk(top, body, env={"AGENT_MODE": "quiet"}, environment={**os.environ, "MINE": "kept", "GOALRUN_TURN": "9"})
    report = desk.run(turn=3)
    assert (top / "in").read_text("utf-8") == (top / "file").read_text("utf-8") == PROMPT
    found = dict(line.split("=", 1) for line in (top / "env").read_text("utf-8").splitlines() if "=" in line)
    expected = {"GOALRUN_GOAL_ID": GOAL, "GOALRUN_TURN": "3", "GOALRUN_WORKSPACE": str(top), "MINE": "kept"}
    assert {**expected, "AGENT_MODE": "quiet"}.items() <= found.items()
    assert report.text == f"{top}\n-rw-------\n"
    assert (report.outcome, report.exit_code) == ("ok", 0)


def test_the_prompt_file_is_outside_of_state_folder_and_workspace_and_gone_afterwards(top: Path) -> None:
    desk = Desk(top, 'echo "$GOALRUN_PROMPT_FILE"; echo changed > "$GOALRUN_PROMPT_FILE"')
    report = desk.run()
    prompt = Path(report.text.strip())
    assert not prompt.is_relative_to(desk.folder)
    assert not prompt.is_relative_to(top)
    assert not prompt.parent.exists()
    assert desk.stored(report, "prompt.md") == PROMPT


def test_a_worker_starts_in_the_subfolder(top: Path) -> None:
    assert Desk(top, "pwd", subfolder="sub").run().text == f"{top}/sub\n"


def test_a_worker_whose_folder_is_gone_is_unavailable(top: Path) -> None:
    (top / "sub").rmdir()
    with pytest.raises(EnvironmentFailure, match="gone"):
        Desk(top, "pwd", subfolder="sub").run()


def test_placeholders_are_replaced_as_whole_words_of_the_command(top: Path) -> None:
    code = 'printf "%s|%s|%s" "$1" "$(cat "$2")" "$3"'
    report = Desk(top, "bash", "-c", code, "agent", "{prompt}", "{prompt_file}", "x{prompt}").run()
    assert report.text == f"{PROMPT}|{PROMPT.rstrip()}|x{{prompt}}"


@pytest.mark.parametrize(
    ("body", "outcome", "exit_code", "reason"),
    [
        ("echo done", "ok", 0, ""),
        ("echo why >&2; exit 3", "failed", 3, "why"),
        ("kill -KILL $$", "failed", -9, ""),
        ("echo thinking; echo; echo no credential; echo; exit 75", "blocked", 75, "no credential"),
        ("exit 75", "blocked", 75, ""),
        ("sleep 300", "timeout", -15, ""),
        ("trap 'echo stuck; exit 75' TERM; while :; do :; done", "timeout", 75, "stuck"),
    ],
)
def test_the_end_of_a_worker_is_its_outcome(body: str, outcome: str, exit_code: int, reason: str, top: Path) -> None:
    report = Desk(top, body).run(timeout=1 if outcome == "timeout" else 60)
    assert (report.outcome, report.exit_code, report.reason) == (outcome, exit_code, reason)


@pytest.mark.parametrize(
    ("said", "reason"),
    [("BLOCKED: no key", "no key"), ("  BLOCKED: no key\n\n", "no key"), ("BLOCKED: no key\nwent on", None),
     ("so I print BLOCKED: no key", None)],
)  # fmt: skip
def test_an_agent_can_report_blocked_by_its_last_line(said: str, reason: str | None, top: Path) -> None:
    report = Desk(top, f"printf %s {shlex.quote(said)}", blocked_line="BLOCKED:").run()
    assert (report.outcome, report.reason) == (("ok", "") if reason is None else ("blocked", reason))


def test_a_reason_is_one_line_without_terminal_codes(top: Path) -> None:
    report = Desk(top, r"printf '\033[31mno\tkey\033[0m \007at all\n'; exit 75").run()
    assert report.reason == "no key at all"


@pytest.mark.parametrize("command", ["no-such-agent --yes", "A=1 no-such-agent", "./agent.sh"])
def test_a_command_that_is_not_there_is_no_turn(command: str, top: Path) -> None:
    with pytest.raises(AgentFailure):
        Desk(top, command).run()


def test_a_program_that_is_not_there_is_no_turn(top: Path) -> None:
    with pytest.raises(AgentFailure, match="no-such-agent"):
        Desk(top, "no-such-agent", "--yes").run()


@pytest.mark.parametrize("body", ["exit 127", "echo x > edited; no-such-tool", "cat | no-such-tool"])
def test_a_worker_that_ran_and_missed_a_tool_has_had_its_turn(body: str, top: Path) -> None:
    report = Desk(top, body).run()
    assert (report.outcome, report.exit_code) == ("failed", 127)


def test_secrets_are_in_no_file_and_no_text(top: Path) -> None:
    environment = {**os.environ, "SERVICE_TOKEN": "planted-secret-value"}
    body = 'echo "out $SERVICE_TOKEN"; echo "err $SERVICE_TOKEN" >&2; exit 75'
    desk = Desk(top, body, environment=environment, secrets=("planted-secret-value",))
    report = desk.run()
    kept = "".join(path.read_text("utf-8") for path in desk.folder.rglob("*") if path.is_file())
    assert "planted-secret-value" not in kept + report.model_dump_json()
    assert desk.stored(report, "stdout") == "out [redacted]\n"
    assert desk.stored(report, "stderr") == "err [redacted]\n"
    assert report.reason == "out [redacted]"


def test_text_is_the_bounded_end_of_what_was_said_and_the_transcript_is_whole(top: Path) -> None:
    desk = Desk(top, r"seq 30000; printf 'l\303\274st \377\n'")
    report = desk.run()
    assert len(report.text) < WORKER_TEXT_CHARS + 100
    assert report.text.endswith("\n30000\nlüst \ufffd\n")
    stdout = (desk.folder / report.transcript / "stdout").read_bytes()
    assert stdout.startswith(b"1\n2\n3\n")
    assert stdout.endswith(b"l\xc3\xbcst \xff\n")


def test_every_attempt_keeps_its_own_transcript(top: Path) -> None:
    desk = Desk(top, "echo $GOALRUN_TURN")
    reports = [desk.run(turn, attempt) for turn, attempt in ((1, 1), (1, 2), (2, 1))]
    assert len({report.transcript for report in reports}) == 3
    assert [desk.stored(report, "stdout") for report in reports] == ["1\n", "1\n", "2\n"]


def test_nothing_of_a_worker_is_left_when_its_turn_is_over(top: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    Desk(top, f"setsid sleep 300 & echo $! > {pids}; nohup sleep 300 & echo $! >> {pids}").run()
    assert len(pids_in(pids)) == 2
    assert not any(map(alive, pids_in(pids)))


def test_an_interrupted_worker_leaves_its_edits_and_no_prompt_file(top: Path) -> None:
    desk = Desk(top, 'echo "$GOALRUN_PROMPT_FILE" > where; sleep 300')

    def poll() -> None:
        if (top / "where").exists() and (top / "where").read_text("utf-8").endswith("\n"):
            raise Interrupted("pause", "asked to")

    desk.worker._means = desk.worker._means._replace(poll=poll)
    with pytest.raises(Interrupted):
        desk.run()
    assert not Path((top / "where").read_text("utf-8").strip()).exists()


def test_a_worker_is_recorded_as_one_before_it_runs(top: Path) -> None:
    seen: list[str] = []

    def record(role: str, process: ProcessIdentity) -> None:
        assert alive(process.pid)
        assert not (top / "ran").exists()
        seen.append(role)

    Desk(top, "touch ran").worker.run(Task(PROMPT, 1, 1, 60), record)
    assert seen == ["worker"]
    assert (top / "ran").exists()


@pytest.mark.parametrize("resumed", [False, True])
def test_the_session_of_a_run_that_was_cut_is_what_its_output_has_named(top: Path, resumed: bool) -> None:  # noqa: FBT001
    """Only a result tells what was spent; a sum over what has come so far would not be all."""
    desk = Desk(top, "true")
    desk.worker._agent = AgentSpec(
        name="agent", command=("true",), reads="find", find={"session": "$.s", "input_tokens": "+$.n", "usd": "$.usd"}
    )
    kept = desk.folder / "turns" / "turn-2" / f"worker-3{'-resumed' if resumed else ''}"
    kept.mkdir(parents=True)
    (kept / "stdout").write_text('{"s": "s1", "n": 3}\n{"n": 4}\n{"usd": 0.5}\n{"s": "hal', "utf-8")
    usage, session = desk.worker.cut(2, 3, Session(id="s0"))
    assert session == Session(id="s1")
    assert usage is not None
    assert (usage.input_tokens, usage.usd) == (None, 0.5)


def test_a_run_that_was_cut_before_it_said_anything_has_no_session(top: Path) -> None:
    assert Desk(top, "true").worker.cut(1, 1, Session(id="s0")) == (None, None)

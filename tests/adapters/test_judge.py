"""Any command as a judge: an empty folder, a nonce, and one JSON object or no verdict."""

import json
import os
import shlex
from pathlib import Path

import pytest
from adapters.goals import GOAL, alive, goal_spec, pids_in, unrecorded

from goalrun.adapters.agents.call import Means
from goalrun.adapters.judge import ATTEMPTS, MAX_REPLY_CHARS, AgentJudge, read_reply
from goalrun.core.model import Judgement, Verdict
from goalrun.core.ports import AgentFailure
from goalrun.core.spec import PLAIN_COMMAND, AgentSpec
from goalrun.errors import Interrupted

NONCE = "nonce-7"
GOOD = {"nonce": NONCE, "achieved": True, "reason": "the diff shows it"}
YES = f"printf '%s' {shlex.quote(json.dumps(GOOD))}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The goal's folder."""
    return tmp_path / "goal"


def judge(folder: Path, body: str, timeout: float = 60, secrets: tuple[str, ...] = ()) -> AgentJudge:
    """A shell command as judge."""
    spec = AgentSpec(name=PLAIN_COMMAND, command=("bash", "-c", body), timeout=timeout, env={"OWL": "wise"})
    goal = goal_spec(folder.parent / "user", judges=(spec,))
    environment = {**os.environ, "GOALRUN_WORKSPACE": "/ws", "GOALRUN_PROMPT_FILE": "/p", "MINE": "kept"}
    return AgentJudge(spec, goal, folder, Means(environment, secrets, lambda: None))


def asked(folder: Path, body: str, timeout: float = 60, secrets: tuple[str, ...] = ()) -> Judgement:
    """What a judge answers."""
    return judge(folder, body, timeout, secrets).judge("the brief\n", "turn-1", NONCE, unrecorded)


def test_a_verdict_comes_with_its_provenance(folder: Path) -> None:
    judgement = asked(folder, YES)
    assert judgement.verdict == Verdict(achieved=True, reason="the diff shows it")
    assert (judgement.judge, judgement.attempts) == (PLAIN_COMMAND, 1)
    assert (folder / judgement.brief).read_text("utf-8") == "the brief\n"
    assert json.loads((folder / judgement.reply).read_text("utf-8")) == GOOD


def test_a_judge_gets_brief_and_nonce_in_an_empty_folder_and_nothing_of_the_workspace(
    folder: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    body = f"cat > {seen}/brief; env > {seen}/env; ls -A > {seen}/ls; pwd > {seen}/pwd; touch junk; {YES}"
    asked(folder, body)
    found = dict(line.split("=", 1) for line in (seen / "env").read_text("utf-8").splitlines() if "=" in line)
    assert {name: value for name, value in found.items() if name.startswith("GOALRUN_")} == {
        "GOALRUN_NONCE": NONCE,
        "GOALRUN_GOAL_ID": GOAL,
    }
    assert (found["MINE"], found["OWL"]) == ("kept", "wise")
    assert (seen / "brief").read_text("utf-8") == "the brief\n"
    assert (seen / "ls").read_text("utf-8") == ""
    where = Path((seen / "pwd").read_text("utf-8").strip())
    assert not where.is_relative_to(tmp_path)
    assert not where.exists()


def reply(**changes: object) -> str:
    """A good reply with other fields; None takes one out."""
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (reply(), Verdict(achieved=True, reason="the diff shows it")),
        (f" \n{reply()}\r\n ", Verdict(achieved=True, reason="the diff shows it")),
        (reply(achieved=False), Verdict(achieved=False, reason="the diff shows it")),
        (reply(achieved=False, blocked=True), Verdict(achieved=False, blocked=True, reason="the diff shows it")),
        (reply(blocked=False, reason=""), Verdict(achieved=True)),
    ],
)
def test_exactly_one_object_of_the_agreed_shape_is_a_verdict(text: str, verdict: Verdict) -> None:
    assert read_reply(text, NONCE) == verdict


BAD = {
    "nothing": "",
    "prose before": f"Here it is: {reply()}",
    "prose after": f"{reply()} I hope that helps.",
    "a code fence": f"```json\n{reply()}\n```",
    "two objects": reply() + reply(),
    "a list": f"[{reply()}]",
    "cut": reply()[:-3],
    "a wrong nonce": reply(nonce="nonce-8"),
    "no nonce": reply(nonce=None),
    "no reason": reply(reason=None),
    "no verdict": reply(achieved=None),
    "one more key": reply(confidence=0.9),
    "a key twice": reply()[:-1] + ', "achieved": true}',
    "a verdict as text": reply(achieved="true"),
    "a verdict as number": reply(achieved=1),
    "a reason as list": reply(reason=["x"]),
    "achieved and blocked": reply(blocked=True),
    "deep": '{"nonce":' * 5000,
    "not utf-8": "\udcff" + reply(),
    "a byte order mark": "\ufeff" + reply(),
    "not a number": reply()[:-1] + ', "blocked": NaN}',
    "huge": reply(reason="x" * MAX_REPLY_CHARS),
    "huge blanks": reply() + " " * MAX_REPLY_CHARS,
}


@pytest.mark.parametrize("what", BAD)
def test_anything_else_is_no_verdict(what: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_reply(BAD[what], NONCE)


@pytest.mark.parametrize(
    "body",
    ["echo yes", f"{YES}; exit 1", f"{YES}; kill -KILL $$", "exit 0", f"{YES}; echo; echo done", "no-such-judge"],
)
def test_a_judge_without_a_verdict_is_asked_again_and_then_unavailable(body: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AgentFailure, match="command gave no verdict"):
        asked(folder, f"echo >> {tmp_path}/asked; {body}")
    assert len((tmp_path / "asked").read_text("utf-8")) == ATTEMPTS == 2


def test_a_judge_that_does_not_answer_in_time_is_ended_and_asked_again(folder: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(AgentFailure, match="no answer after 1 s"):
        asked(folder, f"{YES}; setsid sleep 300 & echo $! >> {pids}; sleep 300", timeout=1)
    assert len(pids_in(pids)) == 2
    assert not any(map(alive, pids_in(pids)))


def test_a_second_answer_that_can_be_read_counts_and_gets_the_brief_again(folder: Path, tmp_path: Path) -> None:
    judgement = asked(folder, f"cat >> {tmp_path}/briefs; [ -e {tmp_path}/again ] && {YES} || touch {tmp_path}/again")
    assert judgement.attempts == 2
    assert judgement.verdict.achieved
    assert (tmp_path / "briefs").read_text("utf-8") == "the brief\nthe brief\n"


def test_a_judge_that_is_not_there_is_unavailable(folder: Path) -> None:
    spec = AgentSpec(name="owl", command=("no-such-judge",))
    missing = AgentJudge(spec, goal_spec(folder, judges=(spec,)), folder, Means(dict(os.environ), (), lambda: None))
    with pytest.raises(AgentFailure, match="no-such-judge"):
        missing.judge("brief", "turn-1", NONCE, unrecorded)


def test_standard_error_is_no_part_of_the_answer(folder: Path) -> None:
    assert asked(folder, f"echo thinking >&2; {YES}").verdict.achieved


def test_a_reason_is_redacted_plain_and_bounded(folder: Path) -> None:
    reason = "planted-secret\x1b[31m" + "\u202e" + "x" * 10_000
    body = f"printf '%s' {shlex.quote(reply(reason=reason))}"
    judgement = asked(folder, body, secrets=("planted-secret",))
    assert judgement.verdict.reason.startswith("[redacted]xxx")
    assert len(judgement.verdict.reason) < 4_100
    assert "planted" not in (folder / judgement.reply).read_text("utf-8")


def test_an_interrupted_judge_is_gone_and_gives_no_verdict(folder: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def poll() -> None:
        if pids_in(pids):
            raise Interrupted("stop", "asked to")

    owl = judge(folder, f"echo $$ > {pids}; sleep 300")
    owl._means = owl._means._replace(poll=poll)
    with pytest.raises(Interrupted):
        owl.judge("brief", "turn-1", NONCE, unrecorded)
    assert not any(map(alive, pids_in(pids)))

"""What is refused of what people hand in, and what is made of the rest."""

import tomllib
from pathlib import Path

import pytest
from fleet.place import Place, bare, in_a_fleet

from goalrun.errors import SettingsError
from goalrun.fleet.submission import MAX_BYTES, Submission, made, read

GOAL = '[[goals]]\nrepo = "/x"\nobjective = "x"\n'


def submission(text: str) -> Submission:
    return made(tomllib.loads(text), "night", "ann", "night.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "goals"),
        ("goals = 3", "goals are [[goals]]"),
        ("[[goal]]", "unknown key 'goal'"),
        ('[[goals]]\nobjective = "x"', "goal 1 names no repository"),
        ("[[goals]]\nrepos = [3]", "goal 1: repo"),
        (f'{GOAL}key = "a\\u001b[31m"', "cannot be shown"),
        (f'{GOAL}account = "a\\u0000"', "cannot be shown"),
        (f'{GOAL}key = "{"x" * 501}"', "goal 1: key"),
        ('[[goals]]\nrepo = "/x"\nobjective = "\\u0000"', "NUL"),
        (f'{GOAL}labels = "gpu"', "labels are a list"),
        (f'{GOAL}labels = [["gpu"]]', "labels are a list"),
        (f'{GOAL}labels = ["a b"]', "labels.0"),
        (f"{GOAL}priority = 1001", "priority"),
        (f'{GOAL}hidden_files = "x"', "hidden_files are on your machine"),
        (f"{GOAL}{GOAL}", "two goals have the key"),
        *((f"[submission]\nmax_usd = {value}\n{GOAL}", "max_usd") for value in ("nan", "inf", "-1", "0")),
        *((GOAL.replace("/x", repo), "is no address of a repository") for repo in (
            "ext::sh -c id", "-x", "--upload-pack=id", "../x", "fd::7", "https://a b", "/x\\ny", "ftp://x", "a.git")),
        *((f'{GOAL}ref = "{ref}"', "is no branch, tag or commit") for ref in (
            "", "-x", "--all", "a..b", "a b", "a:b", "+main", "main.lock", "a@{1}", "refs/../x", "a\\n")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        submission(text)
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).isprintable()


def test_goals_are_kept_apart_by_what_they_say(tmp_path: Path) -> None:
    one, two = submission('[[goals]]\nrepos = ["/x", "git@h:y.git"]\nobjective = "x"\nlabels = ["b", "a"]').goals
    assert one.key != two.key
    assert (one.queue, sorted(one.labels), one.ref) == (two.queue, ["a", "b"], "main")
    # What differs in who may do it is queued apart; the same is the same again.
    other = submission(f'{GOAL}labels = ["a"]').goals[0]
    assert other.queue != one.queue
    assert other == submission(f'{GOAL}labels = ["a"]').goals[0]
    (tmp_path / "large.toml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SettingsError, match="larger than"):
        read(tmp_path / "large.toml", "ann")


@in_a_fleet[0]
@in_a_fleet[1]
def test_one_goal_can_be_said_on_the_command_line(place: Place) -> None:
    repo = bare(place.folder / "repo.git", {"a": ""})
    agent = place.folder / "one/config/goalrun/config.toml"
    agent.parent.mkdir(parents=True)
    agent.write_text('[agents.painter]\ncommand = ["touch", "done"]\n', "utf-8")
    words = ["--repo", str(repo), "--objective", "finish", "-w", "painter", "-c", "test -e done", "-c", "true"]
    more = ["--label", "x", "--label", "y", "--priority", "3", "--key", "K", "--account", "team", "--submitter", "ann"]
    done = place.run("submit", *words, *more, "--json")
    assert done.code == 0, done.err
    place.worker("one", "--labels", "y,x,z")
    row = place.wait(done.json["goals"][0]["id"])[0]
    assert (row["state"], row["key"], row["account"], row["submitter"]) == ("achieved", "K", "team", "ann"), row
    assert (row["labels"], row["priority"], row["agent"]) == (["x", "y"], 3, "painter")
    assert "2 checks passed" in row["detail"]

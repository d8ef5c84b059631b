"""The flows that come with goalrun: listed, proven, documented, in the wheel, and run with scripted agents."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from flow_robots import Robots, statuses

from goalrun.flows.check import check_flow
from goalrun.flows.files import read_flow

ROOT = Path(__file__).resolve().parents[2]
FLOWS = sorted((ROOT / "config/flows").glob("*.toml"))
NAMES = [path.stem for path in FLOWS]
PASS, BLOCK = "VERDICT: PASS", "VERDICT: BLOCK it is wrong"


@pytest.fixture
def robots(tmp_path: Path) -> Robots:
    return Robots(tmp_path)


@pytest.mark.parametrize("path", FLOWS, ids=NAMES)
def test_each_is_proven_with_any_agent_and_says_what_it_does(path: Path) -> None:
    flow = read_flow(path)
    assert check_flow(flow, (), ()) == []
    assert flow.description.startswith(path.stem.replace("-", " ") + ": ")
    assert all(arg.help for arg in flow.args.values())


def test_each_is_listed_by_the_program_and_in_the_documentation(robots: Robots) -> None:
    found = robots.program.run("flow", "list", "--json").json["flows"]
    assert {each["name"] for each in found if each["origin"] == "shipped" and each["broken"] is None} == set(NAMES)
    page = (ROOT / "docs/flows.md").read_text(encoding="utf-8").partition("## Shipped flows\n")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == set(NAMES)


def test_they_are_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]["config"] == "goalrun/config"


@pytest.mark.parametrize(("route", "word", "skipped"), [("deep", "Study", "quick"), ("quick", "three points", "deep")])
def test_research_takes_one_way(robots: Robots, route: str, word: str, skipped: str) -> None:
    answers = [("broad topic", f'{{"route": "{route}"}}'), ("Check the claims", PASS), ("Write a brief", "the brief"),
               (word, f"a {route} study")]  # fmt: skip
    result = robots.run("research", answers, "birds")
    assert (result["state"], result["output"].strip(), statuses(result)[skipped]) == ("done", "the brief", "skipped")
    assert f"a {route} study" in robots.asked()[-1]


def test_research_with_claims_that_do_not_hold_gives_no_brief(robots: Robots) -> None:
    answers = [("broad topic", '{"route": "quick"}'), ("Check the claims", BLOCK), ("three points", "lies")]
    result = robots.run("research", answers, "birds")
    assert (result["state"], statuses(result)["report"]) == ("blocked", "skipped")
    assert "it is wrong" in result["detail"]


def test_guarded_refactor_waits_for_a_person_and_reviews_what_changed(robots: Robots) -> None:
    answers = [("Plan this", "the plan"), ("Review this change", PASS), ("Carry out", "changed", "a.txt")]
    result = robots.run("guarded-refactor", answers, "smaller")
    assert (result["state"], result["code"]) == ("waiting", 9)
    assert (robots.project / "a.txt").read_text(encoding="utf-8") == "a\n"
    done = robots.program.run("answer", "keep the names")
    assert done.code == 0, done.err
    carried, reviewed = robots.asked()[-2:]
    assert "keep the names" in carried
    assert "the plan" in carried
    assert "+++ b/a.txt" in reviewed


def test_guarded_refactor_that_is_refused_changes_nothing(robots: Robots) -> None:
    robots.run("guarded-refactor", [("Plan this", "the plan")], "smaller")
    done = robots.program.run("answer", "no: too risky")
    assert done.code == 6, done.err
    assert (robots.project / "a.txt").read_text(encoding="utf-8") == "a\n"


def test_review_and_fix_fixes_each_finding_and_looks_again(robots: Robots) -> None:
    findings = json.dumps([{"file": "a.txt", "what": "first", "fix": "f"}, {"file": "b", "what": "second", "fix": "g"}])
    answers = [("Review the changes", findings), ("nothing else: first", "one fixed", "a.txt"),
               ("nothing else: second", "no defect"), ("These findings", PASS)]  # fmt: skip
    result = robots.run("review-and-fix", answers)
    assert (result["state"], set(statuses(result).values())) == ("done", {"done"})
    assert (robots.project / "a.txt").read_text(encoding="utf-8").startswith("Fix this in a.txt")
    assert "one fixed" in robots.asked()[-1]


def test_review_without_findings_needs_no_fix(robots: Robots) -> None:
    result = robots.run("review-and-fix", [("Review the changes", "[]"), ("These findings", PASS)])
    assert (result["state"], len(robots.asked())) == ("done", 2)


@pytest.mark.parametrize(("verdict", "state"), [(PASS, "done"), (BLOCK, "blocked")])
def test_adversarial_review_hears_all_critics_and_the_defence(robots: Robots, verdict: str, state: str) -> None:
    answers = [("wrong results and edge cases.", "off by one"), ("untrusted input.", "a hole"), ("later.", "a knot"),
               ("Try to refute", "refuted: a knot"), ("List what stands", verdict)]  # fmt: skip
    result = robots.run("adversarial-review", answers)
    assert result["state"] == state
    last = robots.asked()[-1]
    assert all(said in last for said in ("off by one", "a hole", "a knot", "refuted: a knot"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_compete_and_pick_takes_the_attempt_that_passes_the_tests(robots: Robots) -> None:
    """Each attempt writes its own prompt; the project's test asks for one word of one of them."""
    (robots.project / "Makefile").write_text("test:\n\tgrep -q clearest a.txt\n", encoding="utf-8")
    result = robots.run("compete-and-pick", [("mend it", "I am sure that it passes", "a.txt")], "mend it")
    assert (result["state"], len(robots.asked())) == ("done", 3)
    assert "clearest" in (robots.project / "a.txt").read_text(encoding="utf-8")
    assert [each["status"] for each in result["steps"]["attempt"]["members"]].count("failed") == 2

"""`goalrun report`: what the file says, where it may be written, and that nothing in it runs."""

import os
import re
from pathlib import Path

from pages.browser import Browser
from pages.hostile import TRICKS, hostile_goal
from support import CHEAT_WORKER, FIXED, GOOD_WORKER, Program, script, write

from goalrun.pages.render import MARK

TWO_TURNS = f"if [ $GOALRUN_TURN = 1 ]; then {CHEAT_WORKER}; else git checkout -q tests; {GOOD_WORKER}; fi; echo said"
FLOW = """
[[step]]
id = "plan"
run = ["echo", "the plan"]
[[step]]
id = "never"
needs = ["plan"]
when = "{steps.plan.output} == 'x'"
run = ["echo", "no"]
[[step]]
id = "do"
needs = ["plan"]
run = ["touch", "done.txt"]
"""


def written(program: Program, *arguments: str) -> Path:
    done = program.run("report", *arguments)
    assert done.code == 0, done.err
    return Path(done.out.strip())


def test_a_report_says_what_achieved_rests_on_and_how_it_came_to_be(program: Program, browser: Browser) -> None:
    done = program.start("--json", worker=TWO_TURNS)
    assert done.code == 0, done.err
    path = written(program)
    assert path == program.cwd / f"{done.json['id']}.html"
    assert path.stat().st_mode & 0o777 == 0o600
    browser.open(path.as_uri())
    text = browser.text()
    assert browser.find("h1").text == "make tests pass"
    assert browser.find(".verdict .state").text == "achieved"
    rests = dict(zip([e.text for e in browser.all("dt")], [e.text for e in browser.all("dd")], strict=True))
    (check,) = (said for label, said in rests.items() if label.startswith("Check "))
    assert check == "pass on turn 2 (strong, 1 test passed, 0 failed)"
    assert rests["Sandbox"].startswith(done.json["sandbox"])
    assert rests["Judge"] == "none: the checks alone decide"
    assert rests["Baseline"] == "fail before turn 1: 0 tests passed, 1 failed"
    assert rests["Tampering"] == "protected paths were edited in turn 1 (1 path); the checks ran without those edits"
    assert rests["Worker"] == f"isolation: {done.json['worker_isolation']}"
    assert browser.find("tbody tr.alarm").text.startswith("1 ")
    assert [each.get_attribute("role") for each in browser.all("svg")] == ["img", "img"]
    assert browser.all("svg title")
    assert browser.all("svg desc")
    assert "protected: modified" in browser.text("#fold-1")
    assert f"+{FIXED.splitlines()[1]}" in browser.text("#fold-2")
    for words in ("What the worker was told", "Feedback for the next turn", "Output of ", "exit status 1"):
        assert words in text
    assert not re.search(r"https?://", path.read_text("utf-8"))
    browser.require_harmless()


def test_nothing_that_a_goal_brings_runs_in_its_report(program: Program, browser: Browser, tmp_path: Path) -> None:
    result = hostile_goal(program, tmp_path)
    path = written(program, "-o", "hostile.html")
    assert path.stat().st_size < 1 << 20
    raw = path.read_text("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", raw)
    browser.open(path.as_uri())
    text = browser.text()
    browser.require_harmless()
    for trick in TRICKS:
        assert trick in text
    assert "bytes left out" in text
    assert str(result["id"]) in text
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.run(
        "for (const each of document.querySelectorAll('*')) for (const kind of ['mouseover', 'focus', 'click'])"
        " each.dispatchEvent(new MouseEvent(kind, {bubbles: true, cancelable: true}))"
    )
    browser.require_harmless()


def test_what_would_slip_in_is_stopped_by_the_policy(program: Program, browser: Browser) -> None:
    program.start(worker=GOOD_WORKER)
    path = written(program)
    sound = path.read_text("utf-8")
    for injected in (
        "<script>document.title = 'owned'</script>",
        "<img src='data:,' onerror=\"document.title = 'owned'\">",
        "<style>main { display: none }</style>",
    ):
        path.write_text(sound.replace("<main>", f"{injected}<main>"), encoding="utf-8")
        browser.open(path.as_uri())
        assert any("Content Security Policy" in said for said in browser.log()), injected
        assert browser.driver.title.startswith("achieved")
        assert browser.find("h1").is_displayed()


def test_a_report_is_never_written_over_what_is_none(program: Program) -> None:
    goal = program.start("--json", worker=GOOD_WORKER).json["id"]
    own = program.cwd / f"{goal}.html"
    write(program.cwd, {own.name: "<!doctype html>\nmine\n", "notes.txt": "mine\n"})
    # /proc refuses new files to everybody, root included.
    for arguments in ((), ("-o", "notes.txt"), ("-o", "missing/report.html"), ("-o", "/proc/report.html")):
        done = program.run("report", *arguments)
        assert (done.code, done.out) == (2, "")
        assert "-o FILE" in done.err
    assert (own.read_text("utf-8"), (program.cwd / "notes.txt").read_text("utf-8")) == (
        "<!doctype html>\nmine\n",
        "mine\n",
    )
    own.unlink()
    assert written(program) == written(program) == own
    assert program.run("report", "--json").json == {"schema": 1, "id": goal, "path": str(own)}
    assert MARK in own.read_text("utf-8").splitlines()[0]


def test_a_report_in_the_workspace_of_a_goal_that_goes_on_says_who_can_read_it(program: Program) -> None:
    program.start("--max-turns", "1", worker="true", check="false")
    assert "the worker of a next turn can read it" in program.run("report").err
    assert program.run("report", "-o", str(program.home.parent / "r.html")).err == ""


def test_a_flow_is_shown_with_its_steps(program: Program, browser: Browser) -> None:
    write(program.cwd, {".goalrun/flows/f.toml": FLOW})
    done = program.run("wrap", "f", "make done.txt", "-c", "test -e done.txt", "--json")
    assert done.code == 0, done.err
    browser.open(written(program).as_uri())
    assert "●" in browser.find("pre.graph").text
    rows = {row.text.split()[0]: row.text.split()[1] for row in browser.all("#turn-1 table tbody tr")}
    assert rows == {"plan": "done", "never": "skipped", "do": "done"}
    assert "the plan" in browser.text("#fold-1")
    browser.require_harmless()


def test_what_is_lost_beside_the_journal_is_said_in_its_place(program: Program, tmp_path: Path) -> None:
    goal = program.start("--json", worker=GOOD_WORKER).json["id"]
    folder = program.home / "goals" / goal
    (folder / "store.git").rename(tmp_path / "gone")
    (folder / "turns" / "turn-1" / "check-1.out").unlink()
    page = written(program).read_text("utf-8")
    assert "git diff-tree failed" in page
    assert "achieved" in page


def test_a_goal_that_has_not_begun_has_a_page(program: Program, browser: Browser, tmp_path: Path) -> None:
    hang = script(tmp_path / "hang.py", "import time; time.sleep(600)")
    first = program.start("-d", worker=hang, check="false")
    try:
        second = program.run("start", "wait", "--worker-cmd", "true", "-c", "true", "-d").out.strip()
        browser.open(written(program, second).as_uri())
        assert "queued: " in browser.find(".verdict").text
        assert browser.all("svg") == []
        assert program.run("stop", second).code == 0
    finally:
        assert program.run("stop", first.out.strip()).code == 0


def test_a_damaged_goal_is_refused_as_everywhere(program: Program) -> None:
    goal = program.start("--json", worker=GOOD_WORKER).json["id"]
    journal = program.home / "goals" / goal / "journal.db"
    os.truncate(journal, journal.stat().st_size // 2)
    done = program.run("report", goal)
    assert (done.code, done.out) == (11, "")
    assert "--salvage" in done.err

"""`goalrun fleet web`: a fleet's pages in a real browser, what people do on them, and its metrics."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fleet.place import Place, bare, in_a_fleet, server
from pages.browser import Browser
from pages.hostile import CONTROLS, HOSTILE, TRICKS
from pages.site import Served, serving
from prometheus_client.parser import text_string_to_metric_families

from goalrun.adapters.web import Reply, Request
from goalrun.cli.fleet_web import FleetSite, token_in
from goalrun.errors import SettingsError, SpecError
from goalrun.fleet import goals, metrics, overview
from goalrun.fleet.database import MIGRATIONS, connect, find_fleet, initialise
from goalrun.fleet.queue import engine_tables

pytestmark = in_a_fleet
ROBOT = """
import json, os, sys
sys.stdin.read()
open("work.txt", "a").write(f"turn {os.environ['GOALRUN_TURN']}\\n")
print(%r, json.dumps({"tokens": 1000, "usd": 0.25}), sep="\\n")
"""
NAME = "<img src=x onerror=document.title='owned'>"
"""Of a worker, a label, a repository."""


class Night(NamedTuple):
    """A fleet that has worked, its site, and its goals."""

    place: Place
    site: Served
    good: str
    bad: str
    queued: str


def goal(repo: Path, key: str, program: Path, **more: object) -> str:
    keys = {"key": key, "repo": str(repo), "worker": "robot", "account": "team", **more}
    head = "".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())
    agent = f'command = {json.dumps([sys.executable, str(program)])}\nreads = "find"\n'
    found = '[goals.agents.robot.find]\ntotal_tokens = "$.tokens"\nusd = "$.usd"\n'
    return f"[[goals]]\n{head}[goals.verification]\nbaseline = false\n[goals.agents.robot]\n{agent}{found}"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    robot, evil = folder / "robot.py", folder / "evil.py"
    robot.write_text(ROBOT % "working", encoding="utf-8")
    evil.write_text(ROBOT % (HOSTILE + CONTROLS + "\0"), encoding="utf-8")
    repos = [bare(folder / name, {"work.txt": ""}) for name in ("shop.git", f"{NAME}.git")]
    (folder / "token").write_text("a-token-of-the-metrics\n", encoding="utf-8")
    with server() as made:
        place = Place(folder, made)
        text = '[submission]\nname = "night"\n'
        text += goal(repos[0], "good", robot, objective="two turns", checks=["grep -q 'turn 2' work.txt"])
        evil_check = f"ls; false # {TRICKS[0]}"
        text += goal(
            repos[1], NAME, evil, objective=HOSTILE, checks=[evil_check], limits={"max_turns": 1}, account=NAME
        ).replace('limits = {"max_turns": 1}', "limits = { max_turns = 1 }")
        text += goal(repos[0], "gpu", robot, objective="never", checks=["true"], labels=["gpu"])
        ids = place.submit(text)
        place.worker(NAME, "--slots", "3", "--labels", f"{NAME},linux")
        try:
            place.wait(*ids[:2])
            with serving(place.program, "--metrics-token", str(folder / "token"), command=("fleet", "web")) as site:
                yield Night(place, site, *ids)
        finally:
            place.end()


def test_the_overview_shows_goals_workers_spend_and_checks(night: Night, browser: Browser) -> None:
    browser.open(night.site.address)
    browser.require_harmless()
    tiles = dict(zip(browser.texts(".tiles .label"), browser.texts(".tiles .value"), strict=True))
    states = {"achieved": "1", "max turns": "1", "queued": "1"}
    assert tiles.items() >= {**states, "workers alive": "1", "USD": "0.75", "tokens": "3,000"}.items()
    assert "0 of 3 slots used" in browser.text(".tiles")
    assert [text.split(" ■")[0].strip() for text in browser.texts("figcaption")] == [
        "USD per hour",
        "Tokens per hour",
        "Goals ended per hour",
    ]
    tips = " ".join(browser.texts("rect title"))
    assert all(said in tips for said in (": 0.75 USD", ": 3,000 tokens", ": 1 achieved, 1 ended otherwise"))
    worker, *checks = (row.split("\n") for row in browser.texts("tbody tr"))
    assert {NAME, "alive", "0 of 3", f"{NAME}, linux"} <= {cell.strip() for cell in worker}
    assert any("grep -q 'turn 2' work.txt" in cell for row in checks for cell in row)
    browser.follow("a[href='/states/max_turns']")
    assert browser.texts("h2")[-1] == "Goals: max turns"
    assert f"/goals/{night.good}" not in browser.text("table:last-of-type")
    browser.require_harmless()


def test_a_goals_page_is_that_of_a_local_goal_and_says_what_is_not_there(night: Night, browser: Browser) -> None:
    browser.open(night.site.address)
    browser.follow(f"section:last-of-type a[href='/goals/{night.good}']")
    assert browser.text(".verdict .state") == "achieved"
    assert browser.texts("figcaption b") == ["Checks passed per turn", "Spend per turn"]
    assert len(browser.texts("table tbody tr")) == 2
    facts = browser.text("dl")
    assert f"goalrun/{night.good} " in facts
    assert "made of the goal's records alone" in browser.text()
    assert "working" in browser.text("#fold-2")
    browser.require_harmless()
    browser.open(f"{night.site.origin}/goals/{night.bad}")
    assert browser.text(".verdict .state") == "max turns"
    assert TRICKS[0] in browser.text("h1")
    # The useful part of a check's output is in the records.
    assert [text.strip() for text in browser.texts("#fold-1 details pre")] == ["work.txt"]
    browser.require_harmless()


def test_a_fleet_is_watched_and_its_goals_are_stopped_and_resumed_on_pages(night: Night, browser: Browser) -> None:
    browser.open(night.site.address)
    browser.open(f"{night.site.origin}/goals/{night.queued}")
    assert "no worker that lives has the labels gpu" in browser.text(".verdict")
    browser.find("button[value=stop]").click()
    browser.wait_for("document.querySelector('.said')?.textContent == 'It stops.'", "the stop")
    assert browser.text(".verdict .state") == "stopped"
    browser.find("input[name=text]").send_keys("look <b>there</b>")
    browser.find("button[value=resume]").click()
    browser.wait_for("document.querySelector('.verdict .state').textContent == 'queued'", "the resume")
    assert night.place.goal(night.queued)["hint"] == "look <b>there</b>"
    # A page follows what others do.
    with connect(night.place.url) as db:
        goals.ask(db, goals.find(db, night.queued), "stop")
    browser.wait_for("document.querySelector('.verdict .state').textContent == 'stopped'", "what others do")
    assert not browser.find("button[value=pause]").is_enabled()
    browser.require_harmless()
    browser.open(f"{night.site.origin}/")
    with connect(night.place.url) as db:
        goals.resume(db, goals.find(db, night.queued), "", "")
    browser.wait_for("document.querySelector('.tiles').textContent.includes('queued')", "the overview follows")
    browser.open(f"{night.site.origin}/goals/{night.bad}")
    browser.find("button[value=resume]").click()
    browser.wait_for("document.body.textContent.includes('goalrun fleet resume')", "the refusal")


def test_nobody_sees_a_fleet_without_the_address_and_nothing_else_is_there(night: Night) -> None:
    site = night.site
    for path in ("/", "/events", "/metrics", "/states/queued", f"/goals/{night.good}", "/live.js"):
        status, _, body = site.ask("GET", path)
        assert (status, night.good in body) == (403, False), path
    cookie = site.cookie
    assert "script-src 'self'" in site.ask("GET", "/", cookie)[1]["Content-Security-Policy"]
    for path in ("/x", "/states/", "/states/x", "/goals/x", "/goals/g-20200101-aaaaaaaaa", f"/goals/{night.good}/x"):
        assert site.ask("GET", path, cookie)[0] == 404, path
    post = {**cookie, "Content-Type": "application/x-www-form-urlencoded"}
    assert site.ask("POST", f"/goals/{night.good}", post, "verb=stop")[0] == 403
    token = re.search(r'name="token" value="([\w-]+)"', site.ask("GET", f"/goals/{night.good}", cookie)[2])
    assert token is not None
    assert site.ask("POST", f"/goals/{night.good}", post, f"token={token[1]}&verb=hint")[0] == 409
    shown = FleetSite(find_fleet(night.place.url), read_only=True)
    page = shown.give(Request(f"/goals/{night.good}", {}))
    assert isinstance(page, Reply)
    assert ("<form" in page.body, "Read-only." in page.body) == (False, True)
    with pytest.raises(SpecError, match="nothing is done here"):
        shown.give(Request(f"/goals/{night.queued}", {}, {"verb": "stop"}))


def test_metrics_are_read_with_a_token_that_opens_nothing_else(night: Night) -> None:
    site, bearer = night.site, {"Authorization": "Bearer a-token-of-the-metrics"}
    assert site.ask("GET", "/metrics", {"Authorization": "Bearer wrong"})[0] == 403
    assert site.ask("GET", "/", bearer)[0] == 403
    assert site.ask("POST", "/metrics", bearer, "verb=stop")[0] == 403
    assert site.ask("GET", "/metrics", {**bearer, "Host": "evil.example"})[0] == 421
    status, headers, text = site.ask("GET", "/metrics", bearer)
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {
        (sample.name.removeprefix("goalrun_fleet_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["goals", "achieved"] == 1
    assert found["goals", "running"] == 0
    assert found["workers", "alive"] == 1
    assert (found["slots", "used"], found["slots", "free"]) == (0, 3)
    assert (found["spent_usd_total", "team"], found["spent_tokens_total", NAME]) == (0.5, 1000)
    assert (found["turns_total",], found["takeovers_total",]) == (3, 0)
    assert found["queue_goals",] == 1
    assert found["queue_oldest_seconds",] > 0
    assert 0 < found["check_seconds", "0.5"] <= found["check_seconds", "1.0"]


@pytest.mark.parametrize(("token", "told"), [("", "no token of at least 16"), ("short\n", "no token of at least 16")])
def test_a_token_that_is_none_is_refused(tmp_path: Path, token: str, told: str) -> None:
    with pytest.raises(SettingsError, match="cannot read the token"):
        token_in(tmp_path / "token")
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(SettingsError, match=told):
        token_in(tmp_path / "token")


def test_accounts_are_few_series_and_their_names_are_plain() -> None:
    rows = [
        {"account": f"{CONTROLS}\n{n}{'x' * 200}", "usd": 1.0, "tokens": 1, "blind_usd": 0, "blind_tokens": 0}
        for n in range(metrics.MOST_ACCOUNTS + 30)
    ]
    shown: dict[str, object] = {"states": {}, "workers": []}
    text = metrics.text(metrics.Snapshot(shown, (0, 0.0), rows, {"turns": 0, "takeovers": 0}, []))
    (spent,) = (each for each in text_string_to_metric_families(text) if each.name == "goalrun_fleet_spent_usd")
    values = {sample.labels["account"]: sample.value for sample in spent.samples if sample.name.endswith("_total")}
    assert len(values) == metrics.MOST_ACCOUNTS + 1
    assert values[metrics.OTHERS] == 30
    assert all(name.isprintable() and len(name) <= metrics.NAME_CHARS for name in values)


def test_spend_of_days_is_plotted_by_day_and_older_tables_keep_theirs(night: Night) -> None:
    url = night.place.server.database("days")
    initialise(url, None, engine_tables)
    with connect(url) as db:
        db.execute("ALTER TABLE spend DROP COLUMN hour, ADD PRIMARY KEY (day, goal)")
        db.execute("UPDATE fleet SET format = 1")
        db.execute(
            "INSERT INTO goal (id, key, submission, submitter, repo, ref, file, labels, objective, agent, account,"
            " priority, queue) VALUES ('g-1', '', '', '', '', '', '', '{}', '', '', '', 0, '')"
        )
        db.execute(
            "INSERT INTO spend SELECT (now() AT TIME ZONE 'UTC')::date - n, 'g-1', n, 10 * n, n % 2, 0"
            " FROM generate_series(0, 4) AS n"
        )
    assert initialise(url, None, engine_tables) == (1, len(MIGRATIONS))
    with connect(url) as db:
        unit, slots = overview.over_time(db)
        assert unit == "day"
        assert [slot.usd for slot in slots][-5:] == [4, 3, 2, 1, 0]
        assert (sum(slot.tokens for slot in slots), sum(slot.unknown for slot in slots)) == (100, 2)


def test_a_database_that_is_away_is_said_and_met_again(night: Night) -> None:
    cookie = night.site.cookie
    night.place.server.stop()
    try:
        status, _, body = night.site.ask("GET", "/", cookie)
        assert (status, "the database cannot be used" in body) == (409, True)
    finally:
        night.place.server.start()
    assert night.site.ask("GET", "/", cookie)[0] == 200

"""`goalrun web`: who may see and do what, pages that follow their goals, and what people do on them."""

import os
import re
import shlex
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pages.browser import Browser
from pages.hostile import TRICKS, hostile_goal
from pages.site import Served, serving
from selenium.webdriver.common.keys import Keys
from support import GOOD_WORKER, Program, repository, script, wait_until, write

from goalrun.adapters.web import MAX_CONNECTIONS, Events, Reply, Request, WebServer
from goalrun.cli.web import failed

WAITS = "import os, pathlib, time\nwhile not os.path.exists({!r}): time.sleep(0.01)\n"
ASKS = (
    '[[step]]\nid = "ask"\nask = "may it be done?"\n[[step]]\nid = "do"\nneeds = ["ask"]\nrun = ["touch", "done.txt"]\n'
)


def waiting_worker(tmp_path: Path) -> str:
    """Prints a line, and does its work once the file ``go`` is there."""
    wait = script(tmp_path / "wait.py", "print('thinking aloud', flush=True)\n" + WAITS.format(str(tmp_path / "go")))
    return f"cp $GOALRUN_PROMPT_FILE {shlex.quote(str(tmp_path))}/prompt-$GOALRUN_TURN; {wait}; {GOOD_WORKER}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """A server with one goal, which is achieved; and the goal."""
    folder = tmp_path_factory.mktemp("served")
    program = Program(home=folder / "state", cwd=repository(folder / "project", {}))
    goal = program.start("--json", "--no-baseline", worker="touch done", check="test -e done").json["id"]
    with serving(program) as site:
        yield site, goal


def test_nobody_gets_in_without_the_address(served: tuple[Served, str]) -> None:
    site, goal = served
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", site.address)
    for path in ("/", f"/goals/{goal}", "/events", "/live.js", "/?token=", "/?token=x", "/?token=%ff"):
        status, headers, body = site.ask("GET", path)
        assert (status, "Set-Cookie" in headers, goal in body) == (403, False, False), path
    status, headers, _ = site.ask("GET", site.address.removeprefix(site.origin))
    assert (status, headers["Location"]) == (303, "/")
    assert headers["Set-Cookie"].endswith("HttpOnly; SameSite=Strict; Path=/")
    status, headers, body = site.ask("GET", "/", site.cookie)
    assert (status, goal in body) == (200, True)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert not [name for name in headers if name.startswith("Access-Control-")]


def test_another_sites_name_or_form_is_refused(served: tuple[Served, str]) -> None:
    site, goal = served
    cookie = site.cookie
    for host in ("evil.example", f"evil.example:{urlsplit(site.origin).port}", "127.0.0.1", ""):
        assert site.ask("GET", "/", {**cookie, "Host": host})[0] == 421, host
    token = re.search(r'name="token" value="([\w-]+)"', site.ask("GET", f"/goals/{goal}", cookie)[2])
    assert token is not None
    form = f"token={token[1]}&verb=hint&text=x"
    post = {**cookie, "Content-Type": "application/x-www-form-urlencoded"}
    path = f"/goals/{goal}"
    assert site.ask("POST", path, {}, form)[0] == 403
    assert site.ask("POST", path, {**post, "Origin": "http://evil.example"}, form)[0] == 403
    assert site.ask("POST", path, {**post, "Origin": "null"}, form)[0] == 403
    assert site.ask("POST", path, post, "token=wrong&verb=stop")[0] == 403
    assert site.ask("POST", path, post, "verb=stop")[0] == 403
    assert site.ask("POST", path, post, form + "&".join(f"a{n}=" for n in range(99)))[0] == 403
    assert site.ask("POST", path, {**post, "Content-Length": str(1 << 30)}, form)[0] == 413
    # The same with all that is needed reaches the goal, which is achieved: nobody would read the hint.
    status, _, body = site.ask("POST", path, {**post, "Origin": site.origin}, form)
    assert (status, "nobody would read the hint" in body) == (409, True)
    assert site.ask("POST", path, post, form.replace("hint", "eat"))[0] == 409


def test_only_goals_have_pages(served: tuple[Served, str]) -> None:
    site, goal = served
    cookie = site.cookie
    for path in (
        "/goals",
        "/goals/",
        "/goals/..",
        f"/goals/../goals/{goal}",
        f"/goals/{goal}/x",
        "/%2e%2e/x",
    ):
        assert site.ask("GET", path, cookie)[0] == 404, path
    assert site.ask("GET", "/goals/g-20200101-aaaaaaaaa/events", cookie)[0] == 404
    assert site.ask("DELETE", f"/goals/{goal}", cookie)[0] == 501


def test_a_page_follows_its_goal_and_a_hint_reaches_it(program: Program, browser: Browser, tmp_path: Path) -> None:
    goal = program.start("-d", worker=waiting_worker(tmp_path)).out.strip()
    with serving(program) as site:
        browser.open(site.address)
        assert browser.driver.current_url == site.origin + "/"
        browser.follow(f"a[href='/goals/{goal}']")
        # What its worker prints appears without a step of ours.
        said = "[...document.querySelectorAll('#fold-1 pre')].some(each => each.textContent.includes('thinking aloud'))"
        browser.wait_for(said, "what the worker prints")
        assert browser.text(".verdict .state") == "running"
        browser.run("document.getElementById('fold-1').open = true")
        browser.find("input[name=text]").send_keys("half a hint")
        (tmp_path / "go").touch()
        browser.wait_for("document.querySelector('.verdict .state').textContent == 'achieved'", "its end")
        assert browser.driver.title.startswith("achieved")
        assert browser.find("input[name=text]").get_attribute("value") == "half a hint"
        assert browser.find("#fold-1").get_attribute("open") is not None
        assert not browser.find("button[value=hint]").is_enabled()
        browser.require_harmless()


def test_a_goal_is_hinted_paused_and_stopped_on_its_page(program: Program, browser: Browser, tmp_path: Path) -> None:
    goal = program.start("-d", worker=waiting_worker(tmp_path)).out.strip()
    with serving(program) as site:
        wait_until((tmp_path / "prompt-1").exists, "the first turn")
        browser.open(site.address)
        browser.open(f"{site.origin}/goals/{goal}")
        browser.find("input[name=text]").send_keys("look at <b>the roof</b>")
        browser.find("button[value=hint]").click()
        browser.wait_for("document.querySelector('.said')?.textContent == 'The next turn will read it.'", "the hint")
        browser.find("button[value=pause]").click()
        browser.wait_for("document.querySelector('.said')?.textContent == 'It is paused.'", "the pause")
        assert browser.text(".verdict .state") == "paused"
        assert not browser.find("button[value=pause]").is_enabled()
        (tmp_path / "go").touch()
        browser.find("button[value=stop]").click()
        browser.wait_for("document.querySelector('.said')?.textContent == 'It is stopped.'", "the stop")
        browser.find("input[name=text]").send_keys("and at the cellar")
        browser.find("button[value=resume]").click()
        browser.wait_for("document.querySelector('.said')?.textContent == 'It goes on.'", "the resume")
        browser.wait_for("document.querySelector('.verdict .state').textContent == 'achieved'", "its end")
        assert not browser.find("button[value=resume]").is_enabled()
        browser.require_harmless()
    prompt = (tmp_path / "prompt-1").read_text("utf-8")
    assert "look at <b>the roof</b>" in prompt
    assert "and at the cellar" in prompt


def test_what_waits_for_a_person_is_answered_on_its_page(program: Program, browser: Browser) -> None:
    write(program.cwd, {".goalrun/flows/f.toml": ASKS})
    done = program.run("wrap", "f", "make done.txt", "-c", "test -e done.txt", "--json")
    assert done.code == 9, done.err
    with serving(program) as site:
        browser.open(site.address)
        browser.open(f"{site.origin}/goals/{done.json['id']}")
        assert "may it be done?" in browser.text(".verdict")
        browser.find("button[value=answer]").click()
        browser.wait_for("document.body.textContent.includes('the answer is empty')", "the refusal")
        browser.driver.back()
        browser.find("input[name=text]").send_keys("yes", Keys.TAB, Keys.TAB, Keys.ENTER)
        browser.wait_for("document.querySelector('.verdict .state').textContent == 'achieved'", "its end")
    assert (program.cwd / "done.txt").exists()


def test_hostile_goals_are_harmless_live_too(program: Program, browser: Browser, tmp_path: Path) -> None:
    goal = hostile_goal(program, tmp_path)["id"]
    with serving(program) as site:
        browser.open(site.address)
        browser.require_harmless()
        assert TRICKS[0] in browser.text()
        browser.open(f"{site.origin}/goals/{goal}")
        old = browser.find("#live")
        program.run("hint", goal, "<script>document.title='owned'</script>")
        program.run("stop", goal)
        browser.wait_for("document.querySelector('.verdict .state').textContent == 'stopped'", "the stop")
        assert old.id != browser.find("#live").id
        browser.require_harmless()


def test_damage_is_shown_and_the_others_with_it(program: Program, browser: Browser) -> None:
    sound = program.start("--json", worker=GOOD_WORKER).json["id"]
    bad = program.run("start", "two", "--worker-cmd", "true", "-c", "true", "--json").json["id"]
    journal = program.home / "goals" / bad / "journal.db"
    journal.write_bytes(b"\0" * 5000)
    with serving(program) as site:
        browser.open(site.address)
        assert browser.texts(".pill") == ["damaged", "achieved"]
        browser.follow(f"a[href='/goals/{bad}']")
        assert browser.text(".state") == "damaged"
        assert "--salvage" in browser.text()
        browser.open(f"{site.origin}/goals/{sound}")
        assert browser.text(".verdict .state") == "achieved"


def test_read_only_and_others_goals_have_no_buttons(program: Program) -> None:
    done = program.start("--max-turns", "1", "--json", worker="true", check="false")
    path = f"/goals/{done.json['id']}"
    with serving(program, "--read-only") as site:
        assert "<form" not in site.ask("GET", path, site.cookie)[2]
    if os.geteuid() != 0:
        pytest.skip("only root can give a journal away")
    os.chown(program.home / "goals" / done.json["id"] / "journal.db", 65534, 65534)
    with serving(program) as site:
        page = site.ask("GET", path, site.cookie)[2]
        assert ("<form" in page, "Read-only." in page) == (False, True)


def test_a_goal_without_room_is_not_resumed_and_the_page_says_why(program: Program) -> None:
    goal = program.start("--max-turns", "1", "--json", worker="true", check="false").json["id"]
    with serving(program) as site:
        post = {**site.cookie, "Content-Type": "application/x-www-form-urlencoded"}
        token = re.search(r'name="token" value="([\w-]+)"', site.ask("GET", f"/goals/{goal}", site.cookie)[2])
        assert token is not None
        status, _, body = site.ask("POST", f"/goals/{goal}", post, f"token={token[1]}&verb=resume&text=")
    assert (status, f"goalrun resume {goal} --max-turns +N" in body) == (409, True)


def test_connections_beyond_what_one_person_needs_are_refused(served: tuple[Served, str]) -> None:
    site, _ = served
    place = urlsplit(site.origin)
    assert site.ask("GET", "/")[0] == 403
    many = [socket.create_connection((place.hostname, place.port or 0), timeout=30) for _ in range(MAX_CONNECTIONS)]
    try:
        with socket.create_connection((place.hostname, place.port or 0), timeout=30) as late:
            assert late.recv(100).startswith(b"HTTP/1.1 503 ")
    finally:
        for each in many:
            each.close()

    def has_room() -> bool:
        with suppress(OSError):
            return site.ask("GET", "/")[0] == 403
        return False

    wait_until(has_room, "room again")


def buggy(request: Request) -> Reply | Events:
    """Page and stream of a site with a bug."""
    if request.path == "/stream":
        return (n // 0 == n for n in (1, 2))
    return Reply("fine" if request.path == "/fine" else str(1 // 0))


def test_a_bug_is_a_page_and_a_log_and_ends_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOALRUN_HOME", str(tmp_path))
    with WebServer(0, "", buggy, failed) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            site = Served(made.address())
            cookie = site.cookie
            status, headers, page = site.ask("GET", "/page", cookie)
            assert (status, headers["Content-Type"]) == (500, "text/html; charset=utf-8")
            (log,) = (tmp_path / "log").iterdir()
            assert f"a bug in goalrun: ZeroDivisionError: integer division or modulo by zero; its log is {log}" in page
            assert "in buggy" in log.read_text("utf-8")
            log.unlink()
            # What a stream has begun can be no page any more: it ends, and its page asks again.
            assert site.ask("GET", "/stream", cookie)[::2] == (200, "")
            assert site.ask("GET", "/fine", cookie)[::2] == (200, "fine")
        finally:
            made.shutdown()
            thread.join()
    assert log.exists()


def test_a_port_that_is_taken_is_said(served: tuple[Served, str], program: Program) -> None:
    port = str(urlsplit(served[0].address).port)
    done = program.run("web", "--no-browser", "--port", port)
    assert (done.code, done.out) == (2, "")
    assert f"port {port} cannot be used" in done.err


def test_the_address_for_a_browser_works_once(program: Program, tmp_path: Path) -> None:
    kept = tmp_path / "opened"
    browser = write(
        tmp_path, {"browser": f'#!/bin/sh\necho "$1" > {shlex.quote(str(kept))}.tmp && mv {kept}.tmp {kept}\n'}
    )
    (browser / "browser").chmod(0o755)
    program.environment = {"DISPLAY": ":0", "BROWSER": f"{browser / 'browser'} %s"}
    process = program.spawn("web")
    assert process.stdout is not None
    site = Served(process.stdout.readline().strip(), process)
    try:
        wait_until(kept.exists, "the browser")
        once = kept.read_text("utf-8").strip().removeprefix(site.origin)
        assert once != site.address.removeprefix(site.origin)
        assert [site.ask("GET", once)[0] for _ in range(2)] == [303, 403]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

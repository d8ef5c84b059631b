"""The live view and ``goalrun watch``, in a real terminal."""

from pathlib import Path

import pytest
from support import CHEAT_WORKER, FIXED, Program, shop, wait_until
from terminal import COLOURED, needs_tmux, terminal

from goalrun.adapters.home import Home
from goalrun.cli.live import LiveView

pytestmark = needs_tmux

CHECK = "python3 -m unittest discover -s tests"
ESCAPES = r"printf '\033[2J\033[31mred\033]0;title\007 \342\200\256rtl\r\000back\n'"
ZEROS = "head -c {} /dev/zero | tr '\\0' z; echo"
HOSTILE = f"{ZEROS.format(1_000_000)}; {ESCAPES}; echo '日本語の行 🎉 wide'; {ZEROS.format(9_000)}"


def until(path: Path) -> str:
    """A command that waits until a file is there."""
    return f"until [ -e {path} ]; do sleep 0.05; done"


def good(go: Path, before: str = "true") -> str:
    """A worker that prints, waits to be let go, and does the work."""
    return f"{before}; {until(go)}; cat > shop.py <<'END'\n{FIXED}END"


def start(worker: str, *more: str) -> tuple[str, ...]:
    return ("start", "make tests pass", "--worker-cmd", worker, "-c", CHECK, *more)


def test_the_view_shows_stage_checks_and_budget_and_leaves_the_end_behind(program: Program, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with terminal(program, tmp_path / "t", *start(good(go, "echo thinking about it"), "--max-time", "1h")) as shown:
        screen = shown.wait("turn 1 of 20", "thinking about it", "checks of the base", "p pause")
        assert "1/20" in screen
        assert "/1:00:00" in screen
        assert f"✗ {CHECK}" in screen
        go.touch()
        assert shown.code() == 0
        # The view says how it ended too, for a moment.
        end = shown.wait("achieved", "1 check passed")
        # The view is gone; what it rests on, and the end, stay.
        assert "p pause" not in end
        assert "check pass" in end
        assert shown.tmux("display-message", "-p", "#{alternate_on}").strip() == "0"


def test_what_a_worker_prints_cannot_touch_the_screen(program: Program, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with terminal(program, tmp_path / "t", *start(good(go, HOSTILE)), columns=60, rows=20) as shown:
        screen = shown.wait("日本語の行 🎉 wide", "zzzz", "p pause")
        assert screen.splitlines()[0].startswith("running")
        assert "\u202e" not in screen
        # Long lines are cut at the edge, and not in the middle of a wide character.
        assert all(len(line) <= 60 for line in screen.splitlines())
        assert "title" not in shown.tmux("display-message", "-p", "#{pane_title}")
        go.touch()
        shown.wait("achieved")


def test_tampering_is_red_and_the_feedback_is_shown(program: Program, tmp_path: Path) -> None:
    worker = f'if [ "$GOALRUN_TURN" = 1 ]; then {CHEAT_WORKER}; else {until(tmp_path / "never")}; fi'
    with terminal(program, tmp_path / "t", *start(worker), NO_COLOR=COLOURED) as shown:
        shown.wait("tampered  tests/test_shop.py (modified)", "turn 2 of 20", "feedback  You changed protected paths")
        assert "\x1b[31m" in shown.screen(styled=True).partition("tampered  tests")[0][-24:]
        shown.press("C-c")
        assert shown.code() == 130
        shown.wait("paused", "go on: goalrun resume")


def test_a_terminal_that_takes_nothing_does_not_hold_up_the_goal(program: Program, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with terminal(program, tmp_path / "t", *start(good(go))) as shown:
        shown.wait("turn 1 of 20")
        shown.press("C-s")
        go.touch()
        wait_until(lambda: program.goals()[0]["state"] == "achieved", "the goal achieved behind a stopped terminal")
        assert "turn 1 of 20" in shown.screen()
        shown.press("C-q")
        shown.wait("achieved", "snapshot")
        assert shown.code() == 0


def test_the_view_follows_the_size_of_the_terminal_and_can_be_left(program: Program, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with terminal(program, tmp_path / "t", *start(good(go))) as shown:
        shown.wait("turn 1 of 20")
        shown.resize(50, 12)
        wait_until(lambda: "p pause" in shown.screen().splitlines()[11], "the foot on the last line")
        assert shown.screen().count("running") == 1
        shown.resize(100, 30)
        wait_until(lambda: "p pause" in shown.screen().splitlines()[29], "the foot on the last line")
        assert shown.screen().count("p pause") == 1
        shown.press("q")
        shown.wait("the goal goes on")
        go.touch()
        shown.wait("worker ok", "achieved")
        assert shown.code() == 0


def test_keys_hint_and_stop_after_asking(program: Program, tmp_path: Path) -> None:
    worker = f'cat > "{tmp_path}/prompt-$GOALRUN_TURN"; touch "{tmp_path}/{{begun}}"; {until(tmp_path / "go")}'
    with terminal(program, tmp_path / "t", *start(worker.replace("{begun}", "begun-$GOALRUN_TURN"))) as shown:
        shown.wait("turn 1 of 20")
        shown.press("h")
        shown.type("look at shöp.py")
        shown.wait("look at shöp.py_")
        shown.press("Enter")
        shown.wait("the next turn will read it")
        shown.press("s")
        shown.wait("stop the goal?")
        shown.press("n")
        shown.wait("p pause")
        shown.press("s")
        shown.wait("stop the goal?")
        shown.press("y")
        assert shown.code() == 7
        shown.wait("stopped")
    (tmp_path / "go").touch()
    program.run("resume", "--max-turns", "1")
    assert "look at shöp.py" in (tmp_path / "prompt-1").read_text()


def test_watch_shows_a_detached_goal_and_the_list_of_all(program: Program, tmp_path: Path) -> None:
    go, other = tmp_path / "go", tmp_path / "other"
    first = program.run(*start(good(go), "--detach")).out.strip()
    second = program.run(*start(until(other), "--detach"), cwd=shop(tmp_path / "second")).out.strip()
    with terminal(program, tmp_path / "t", "watch") as shown:
        shown.wait(first, "turn 1 of 20")
        shown.press("q")
        assert shown.code() == 0
    with terminal(program, tmp_path / "t", "watch", "--all") as shown:
        shown.wait("2 goals running", second, "▶ running            0/20")
        shown.press("Enter")
        shown.wait(second, "turn 1 of 20", "p pause   s stop")
        shown.press("q")
        shown.wait("2 goals running")
        shown.press("s")
        shown.press("y")
        shown.wait("1 goal running", "stopped")
        shown.press("q")
        assert shown.code() == 0
    with terminal(program, tmp_path / "t", "watch", first) as shown:
        shown.wait("turn 1 of 20")
        go.touch()
        shown.wait("achieved", "goalrun diff")
        assert shown.code() == 0
    # Without a terminal: lines, and the exit code of the goal.
    done = program.run("watch", first)
    assert (done.code, "turn 1 of 20" in done.err, done.out.startswith("achieved")) == (0, True, True)
    assert program.run("watch", second[:-1]).code == 7


def test_a_flow_is_drawn_with_what_becomes_of_each_step(program: Program, tmp_path: Path) -> None:
    go = tmp_path / "go"
    (program.cwd / "flow.toml").write_text(
        '[[step]]\nid = "plan"\nrun = "echo planned"\n'
        '[[step]]\nid = "fan"\nneeds = ["plan"]\neach = ["a", "b"]\noptional = true\nwrites = false\n'
        'run = ["bash", "-c", "test {item} = a"]\n'
        f'[[step]]\nid = "docs"\nneeds = ["plan"]\nwrites = false\nrun = "{until(go)}"\n'
        '[[step]]\nid = "last"\nneeds = ["fan", "docs"]\njoin = "done"\nrun = "echo over"\n',
        encoding="utf-8",
    )
    with terminal(program, tmp_path / "t", "flow", "run", "flow.toml") as shown:
        screen = shown.wait("✓    plan", "✗ │  fan", "[1]", "●  docs", "·    last")
        assert "├─╮" in screen
        go.touch()
        shown.wait("done", "over")
        assert shown.code() == 0


def test_quiet_says_only_the_end_and_verbose_shows_prompts_and_output(program: Program) -> None:
    quiet = program.start("-q", worker="touch done", check="test -e done")
    assert (quiet.code, quiet.err, quiet.out.startswith("achieved")) == (0, "", True)
    loud = program.start("--verbose", "--force", worker="echo said; touch again", check="echo printed; test -e again")
    assert loud.code == 0
    assert "| said" in loud.err
    assert "| printed" in loud.err
    assert "make tests pass" in loud.err.partition("    | ")[2]
    assert program.start("-q", "-v", worker="true").code == 2


def test_on_a_terminal_that_cannot_be_drawn_on_lines_are_shown(program: Program, tmp_path: Path) -> None:
    with terminal(program, tmp_path / "t", *start(good(tmp_path / "go")), term="dumb") as shown:
        shown.wait("turn 1 of 20", "worker isolation")
        assert "p pause" not in shown.screen()
        (tmp_path / "go").touch()
        shown.wait("achieved")


def test_a_view_that_cannot_draw_gives_way_to_lines(program: Program, capfd: pytest.CaptureFixture[str]) -> None:
    """Standard error is a file here, which has no size: drawing fails at once."""
    from goalrun.adapters.journal import records, replay
    from goalrun.adapters.views import JOURNAL

    goal = str(program.start("--json", worker="touch done", check="test -e done").json["id"])
    home = Home(program.home)
    path = home.folder(goal) / JOURNAL
    with LiveView(home, goal) as view:
        view._thread.join()
        for record in records(path):
            view.show(record, replay(path))
    told = capfd.readouterr().err
    assert "the view was closed: OSError" in told
    assert "turn 1 of 20" in told


def test_a_bell_and_a_terminals_notification_are_sent_where_asked_for(program: Program, tmp_path: Path) -> None:
    (program.cwd / "goalrun.toml").write_text("[notify]\nterminal = true\n", encoding="utf-8")
    with terminal(program, tmp_path / "t", *start("true", "--max-turns", "1")) as shown:
        shown.wait("max_turns", "goalrun resume", "--max-turns +1")
        assert shown.code() == 3
        assert shown.tmux("display-message", "-p", "#{window_bell_flag}").strip() == "1"

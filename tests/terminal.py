"""A real terminal: tmux, with the program in it, keys sent and the screen read."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import Program, wait_until

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
SETTINGS = "set -g remain-on-exit on\nset -g escape-time 0\nset -g default-terminal screen-256color\n"
COLOURED = "colour"


class Terminal:
    """One window of tmux, on a server of its own."""

    def __init__(self, socket: Path, ended: Path) -> None:
        self._socket = socket
        self.ended = ended

    def tmux(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        command = ["tmux", "-S", str(self._socket), "-f", str(self._socket.with_name("tmux.conf")), *arguments]
        done = subprocess.run(command, env=env, check=True, capture_output=True, timeout=30)
        return done.stdout.decode("utf-8", "replace")

    def screen(self, *, styled: bool = False) -> str:
        """What the screen shows; ``styled`` with its escapes."""
        return self.tmux("capture-pane", "-p", *(["-e"] if styled else []))

    def wait(self, *texts: str) -> str:
        """The screen, once it shows all of these."""
        shown = ""

        def seen() -> bool:
            nonlocal shown
            shown = self.screen()
            return all(text in shown for text in texts)

        try:
            wait_until(seen, f"{texts} on the screen")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{shown}") from None
        return shown

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def resize(self, columns: int, rows: int) -> None:
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def code(self) -> int:
        """The exit code, once the program has ended."""
        # From a file: tmux at times says that a pane is dead, and never how its program ended.
        wait_until(self.ended.exists, "the end in the terminal")
        return int(self.ended.read_text(encoding="utf-8"))


@contextmanager
def terminal(
    program: Program,
    folder: Path,
    *arguments: str,
    columns: int = 80,
    rows: int = 24,
    term: str = "screen-256color",
    **more: str,
) -> Iterator[Terminal]:
    """The program with these arguments in a terminal, in the program's folder; ``more`` are variables."""
    folder.mkdir(exist_ok=True)
    # A tmux of its own each time: one that was told to end may still have its socket.
    folder = Path(tempfile.mkdtemp(prefix="", dir=folder))
    (folder / "tmux.conf").write_text(SETTINGS, encoding="utf-8")
    # A socket's path has to be short (unix(7): 108 bytes).
    socket = Path(os.path.relpath(folder / "s"))
    ended = folder / "ended"
    shown = Terminal(socket if len(str(socket)) < len(str(folder)) else folder / "s", ended)
    env = {**program.env(), "LC_ALL": "C.UTF-8", **more}
    env.pop("TMUX", None)
    if more.get("NO_COLOR") == COLOURED:
        del env["NO_COLOR"]
    command = shlex.join([sys.executable, "-P", "-m", "goalrun", *arguments])
    size = ("-x", str(columns), "-y", str(rows))
    # tmux gives every program in it a TERM of its own.
    begin = f"stty ixon; trap : INT; TERM={shlex.quote(term)} {command}; echo $? > {ended}.new; mv {ended}.new {ended}"
    shown.tmux("new-session", "-d", *size, "-c", str(program.cwd), "bash", "-c", begin, env=env)
    try:
        yield shown
    finally:
        shown.tmux("kill-server")

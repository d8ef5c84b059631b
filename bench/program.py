"""How long short commands take to start, what output costs on its way to a file, and what a record costs."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from measure import goalrun, line, median, repository, side_by_side, silent

EMPTY = "import typer\napp = typer.Typer()\n@app.command()\ndef f() -> None: pass\napp()"
VERSION_FACTOR, STATUS_FACTOR = 1.1, 2.0
LEAST_MEGABYTES_PER_SECOND = 500
OUTPUT_MEGABYTES, QUICK_MEGABYTES = 2000, 400
RUNS, RECORDS = 15, 500


def start(scratch: Path, *, quick: bool) -> None:
    """Short commands against an empty typer program."""
    top, home = repository(scratch / "small", 200), scratch / "state-of-small"
    goalrun(["start", "bench", "--worker-cmd", "true", "-c", "true"], top, home)
    commands = (["--version"], ["--help"], ["status"], ["list"])
    actions = {" ".join(words): partial(goalrun, words, top, home) for words in commands}
    taken = side_by_side(
        {"empty": partial(silent, [sys.executable, "-c", EMPTY], top), **actions}, 5 if quick else RUNS
    )
    empty = taken.pop("empty")
    line(f"an empty typer program: {empty:.0f} ms")
    for name, time_taken in taken.items():
        most = VERSION_FACTOR if name.startswith("--") else STATUS_FACTOR
        line(f"goalrun {name}: {time_taken:.0f} ms", time_taken / empty, most, "x an empty typer program")


def capture(scratch: Path, *, quick: bool) -> None:
    """Output on its way to a file: bytes per second, and the memory of whoever carries it."""
    size = QUICK_MEGABYTES if quick else OUTPUT_MEGABYTES
    # A process of its own: peaks of memory are those of the largest child so far.
    for name, source in (
        ("lines", "yes 'one line among many others'"),
        ("one endless line", "cat /dev/zero"),
    ):
        words = [sys.executable, __file__, f"{source} | head -c {size}M", str(scratch / "out")]
        took, memory = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        alone = median(partial(silent, ["bash", "-c", f"{source} | head -c {size}M | cat > /dev/null"], scratch), 1)
        speed = size / float(took)
        line(
            f"capture of {size} MB, {name}: {speed:.0f} MB/s, piped into cat {size / alone * 1000:.0f} MB/s, peak "
            f"memory {int(memory) // 1024} MiB",
            LEAST_MEGABYTES_PER_SECOND / speed,
            1.0,
            "x the time of 500 MB/s",
        )


def _captured(command: str, out: Path) -> None:
    from goalrun.adapters import process

    carriers: list[str] = []
    peaks = [0]

    def look() -> None:
        # Of who started the command, and carries its output.
        for pid in carriers:
            with suppress(OSError):
                peaks.append(int(_field(pid, "VmHWM").split()[0]))

    began = time.perf_counter()
    order = process.Command(("bash", "-c", command), out.parent, dict(os.environ), out, timeout=600.0)
    process.run(order, lambda started: carriers.append(_field(str(started.pid), "PPid")), look)
    sys.stdout.write(f"{time.perf_counter() - began} {max(peaks)}\n")


def _field(pid: str, name: str) -> str:
    """Of a process, as Linux tells it (proc(5))."""
    lines = Path("/proc", pid, "status").read_text(encoding="ascii").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def journal(scratch: Path, *, quick: bool) -> None:
    """One record, durable, and beside it one line appended to a file and synced."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from values import PROCESS, goal

    from goalrun.adapters.clock import SystemClock
    from goalrun.adapters.journal import SqliteJournal
    from goalrun.core.events import GoalCreated, RunStarted

    clock = SystemClock(lambda: None)
    kept = SqliteJournal(scratch / "journal.db", clock)
    _, state = kept.append(GoalCreated(spec=goal()), None)
    with (scratch / "lines").open("ab", buffering=0) as file:

        def synced() -> None:
            file.write(b"x" * 300)
            os.fsync(file.fileno())

        append = partial(kept.append, RunStarted(runner=PROCESS), state)
        taken = side_by_side({"record": append, "line": synced}, RECORDS // 5 if quick else RECORDS)
    kept.close()
    record, plain = taken["record"] * 1000, taken["line"] * 1000
    line(f"journal: {record:.0f} µs a record, {record / plain:.1f} x an appended and synced line ({plain:.0f} µs)")


if __name__ == "__main__":
    _captured(sys.argv[1], Path(sys.argv[2]))

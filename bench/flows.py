"""What a flow costs beside its commands."""

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import goalrun, line, milliseconds

CONCURRENCY = 4
TRUE = '["true"]'


def run(scratch: Path, *, quick: bool) -> None:
    """A flow of trivial steps, and the same commands through the same door without a flow, as many at once."""
    steps = 100 if quick else 1000
    folder = scratch / "flow"
    folder.mkdir()
    empty = _run(folder, 1, TRUE)
    bare = milliseconds(lambda: _spawned(folder, steps))
    whole = _run(folder, steps, TRUE)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    line(
        f"flow of {steps} steps: {whole / 1000:.2f} s, of one step {empty / 1000:.2f} s, the same commands alone "
        f"{bare / 1000:.2f} s: {(whole - empty - bare) / steps:.2f} ms a step beside spawning; peak memory "
        f"{memory} MiB; at once at most {_most_at_once(folder)} of {CONCURRENCY}"
    )


def _run(folder: Path, steps: int, words: str) -> float:
    step = '[[step]]\nid = "s{}"\nrun = {}\nwrites = false\n'
    text = f"concurrency = {CONCURRENCY}\n" + "".join(step.format(number, words) for number in range(steps))
    (folder / "bench.toml").write_text(text, encoding="utf-8")
    # Namespaces are a cost of commands, not of flows; what they are compared with has none.
    (folder / "goalrun.toml").write_text('worker_isolation = "off"\n', encoding="utf-8")
    return milliseconds(lambda: goalrun(["flow", "run", "bench.toml"], folder, folder.parent / "state-of-flow"))


def _spawned(folder: Path, steps: int) -> None:
    from goalrun.adapters import process

    def one(number: int) -> None:
        out = folder.parent / f"out-{number}"
        command = process.Command(argv=("true",), cwd=folder, env=dict(os.environ), stdout=out, timeout=60.0)
        process.run(command, lambda _: None, lambda: None)

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(one, range(steps)))


def _most_at_once(folder: Path) -> int:
    """How many steps were inside at once at most, as they say themselves: each holds a file for a moment."""
    log = folder.parent / "inside"
    _run(folder, 40, f'["sh", "-c", "echo + >> {log}; sleep 0.02; echo - >> {log}"]')
    now = most = 0
    for sign in log.read_text(encoding="utf-8").split():
        now += 1 if sign == "+" else -1
        most = max(most, now)
    return most

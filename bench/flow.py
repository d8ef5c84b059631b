"""What a flow costs beside its commands: ``python bench/flow.py [STEPS]`` (1,000).

Prints the time of a flow of trivial ``run`` steps, beside it the time of the same commands spawned, as many at once, by
the door that goalrun uses, the difference per step, peak memory, and how many ran at once at most.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONCURRENCY = 4


def flow(steps: int, words: str) -> str:
    """That many steps that need nothing."""
    step = '[[step]]\nid = "s{}"\nrun = {}\nwrites = false\n'
    return f"concurrency = {CONCURRENCY}\n" + "".join(step.format(number, words) for number in range(steps))


def run(folder: Path, text: str) -> tuple[float, int]:
    """Seconds of a run of the flow, and the peak memory of the largest process in MiB."""
    (folder / "bench.toml").write_text(text, encoding="utf-8")
    # Namespaces are a cost of commands, not of flows; what they are compared with has none.
    (folder / "goalrun.toml").write_text('worker_isolation = "off"\n', encoding="utf-8")
    env = {**os.environ, "GOALRUN_HOME": str(folder.parent / "state")}
    begun = time.perf_counter()
    argv = [sys.executable, "-P", "-m", "goalrun", "flow", "run", "bench.toml"]
    subprocess.run(argv, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def spawned(folder: Path, steps: int) -> float:
    """Seconds of the same commands without a flow: through goalrun's own supervisor, so many at once."""
    from goalrun.adapters import process

    def one(number: int) -> None:
        out = folder.parent / f"out-{number}"
        command = process.Command(argv=("true",), cwd=folder, env=dict(os.environ), stdout=out, timeout=60.0)
        process.run(command, lambda _: None, lambda: None)

    begun = time.perf_counter()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(one, range(steps)))
    return time.perf_counter() - begun


def most_at_once(folder: Path) -> int:
    """How many steps were inside at once at most, as they say themselves: each holds a file for a moment."""
    log = folder.parent / "inside"
    line = f"echo + >> {log}; sleep 0.02; echo - >> {log}"
    run(folder, flow(40, f'["sh", "-c", "{line}"]'))
    now = most = 0
    for sign in log.read_text(encoding="utf-8").split():
        now += 1 if sign == "+" else -1
        most = max(most, now)
    return most


def main() -> None:
    """Measure, and print."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "workspace"
        folder.mkdir()
        empty, _ = run(folder, flow(1, '["true"]'))
        bare = spawned(folder, steps)
        whole, memory = run(folder, flow(steps, '["true"]'))
        beside = (whole - empty - bare) / steps * 1_000
        load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
        sys.stdout.write(
            f"{steps} steps: {whole:.2f} s, of one step: {empty:.2f} s, the same commands alone: {bare:.2f} s\n"
            f"beside spawning: {beside:.2f} ms a step; peak memory {memory} MiB; "
            f"at once at most {most_at_once(folder)} of {CONCURRENCY}; load {load}\n"
        )


if __name__ == "__main__":
    main()

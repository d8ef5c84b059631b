"""Lets atheris, which looks at the branches that an input takes, search for input that breaks a parser.

``python tests/fuzz/run.py TARGET|all [--seconds N]``: prints a table; what breaks a target is kept in the folder that
the table names, and breaks it again with ``python tests/fuzz/run.py TARGET --again FILE``. It needs the extra ``fuzz``.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
MAX_BYTES = 20_000


def fuzz(name: str, arguments: list[str]) -> None:
    """Search in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["goalrun"]):
        from fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name].check)
    atheris.Fuzz()


def search(name: str, seconds: int, kept: Path) -> tuple[int, str]:
    """Search in a process of its own; executions, and what was found."""
    from fuzz.targets import TARGETS

    seeds = kept / f"seeds-{name}"
    seeds.mkdir()
    for number, seed in enumerate(TARGETS[name].seeds()):
        if len(seed) <= MAX_BYTES:
            (seeds / str(number)).write_bytes(seed)
    limits = (f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=20", "-rss_limit_mb=2048")
    told = ("-print_final_stats=1", f"-artifact_prefix={kept}/{name}-", str(seeds))
    command = [sys.executable, __file__, name, "--here", *limits, *told]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    (kept / f"{name}.log").write_text(done.stderr)
    counted = re.findall(r"^(?:#|stat::number_of_executed_units: )(\d+)", done.stderr, re.MULTILINE)
    failed = re.findall(r"^\s*(?:\w+\.)*\w*(?:Error|Exception|Interrupt).*", done.stdout + done.stderr, re.MULTILINE)
    found = failed[0].strip()[:120] if failed else f"exit status {done.returncode}"
    return int(counted[-1]) if counted else 0, "" if done.returncode == 0 else found


def main() -> int:
    """Search, and print what came of it."""
    options = argparse.ArgumentParser()
    options.add_argument("target")
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--again", type=Path)
    options.add_argument("--here", action="store_true")
    asked, rest = options.parse_known_args()
    if asked.here:
        fuzz(asked.target, rest)
    from fuzz.targets import TARGETS, forget_scratch

    if asked.again is not None:
        TARGETS[asked.target].check(asked.again.read_bytes())
        forget_scratch()
        return 0
    kept = Path(tempfile.mkdtemp(prefix="goalrun-findings-"))
    broken = 0
    for name in sorted(TARGETS) if asked.target == "all" else [asked.target]:
        executions, found = search(name, asked.seconds, kept)
        broken += bool(found)
        print(f"{name:20} {executions:>9}  {found or 'nothing'}", flush=True)
    print(f"in {kept}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

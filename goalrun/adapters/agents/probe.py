"""What the installed version of an agent's program is, and which flags it knows: asked once, then remembered."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters import process
from goalrun.adapters.files import private_folder, read_bounded, write_whole
from goalrun.core.evidence import one_line
from goalrun.errors import EnvironmentFailure

PROBE_SECONDS = 30.0
MAX_HELP_BYTES = 1 << 20
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_FLAG = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


class Probed(NamedTuple):
    """One installed program.

    Attributes:
        version: as it says itself, like ``2.1.329``; "" if it says nothing of the kind.
        flags: those that its help names.
    """

    version: str
    flags: frozenset[str]


def probe(program: Path, home: Path, environment: Mapping[str, str]) -> Probed:
    """What a program says of itself. The answer is kept for as long as the file stays the same."""
    real = program.resolve()
    stat = real.stat()
    key = sha256(f"{real}\0{stat.st_mtime_ns}\0{stat.st_size}".encode()).hexdigest()[:32]
    kept = private_folder(home / "agents") / f"{key}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(kept.read_bytes())
        return Probed(str(known["version"]), frozenset(map(str, known["flags"])))
    said = _said(program, "--version", environment)
    version = _VERSION.search(said)
    flags = frozenset(_FLAG.findall(_said(program, "--help", environment)))
    found = Probed(version[0] if version else "", flags)
    if version:
        write_whole(kept, json.dumps({"program": str(real), "version": found.version, "flags": sorted(flags)}))
    return found


def older(version: str, least: str) -> bool:
    """Whether a version comes before another one, number by number."""
    return _numbers(version) < _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _said(program: Path, flag: str, environment: Mapping[str, str]) -> str:
    folder = Path(tempfile.mkdtemp(prefix="goalrun-probe-"))
    try:
        command = process.Command(
            argv=(str(program), flag), cwd=folder, env=environment, stdout=folder / "out", timeout=PROBE_SECONDS
        )
        process.run(command, lambda _: None, lambda: None)
        return read_bounded(folder / "out", MAX_HELP_BYTES, 0)
    except EnvironmentFailure as failure:
        return one_line(str(failure))
    finally:
        shutil.rmtree(folder, ignore_errors=True)

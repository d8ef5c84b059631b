"""Flows from other systems' definitions."""

from pathlib import Path

from goalrun.cli.render import note, out
from goalrun.core.evidence import count, one_line
from goalrun.core.flow.model import FLOW_NAME
from goalrun.errors import FlowError
from goalrun.flows.files import read_text
from goalrun.flows.taskflow import import_taskflow

WRONG = 2


def import_flow(file: Path, output: Path | None, name: str) -> int:
    """Write what a definition of pi-taskflow says as a flow; a flow is called by its file.

    Raises:
        FlowError: the file cannot be read, or the new one not be written.
    """
    named = name or (output.stem if output is not None else "")
    if named and not FLOW_NAME.fullmatch(named):
        raise FlowError(f"{named[:80]!r} is no name of a flow", hint="letters, digits, - and _")
    if output is not None and (output.suffix != ".toml" or output.exists()):
        why = "is already there" if output.exists() else "does not end in .toml"
        raise FlowError(f"{output} {why}", hint="-o .goalrun/flows/NAME.toml")
    try:
        made = import_taskflow(read_text(file), str(file), named, lambda used: _beside(file, used))
    except FlowError as failure:
        if failure.found == (str(failure),):
            raise
        for line in failure.found:
            note(line)
        note(f"{count(len(failure.found), 'problem')}; nothing was written")
        return WRONG
    for line in made.told:
        note(f"note: {line}")
    if output is None:
        out(made.toml.rstrip("\n"))
        return 0
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("x", encoding="utf-8", newline="\n") as target:
            target.write(made.toml)
    except OSError as failure:
        raise FlowError(f"cannot write {output}: {failure.strerror}") from failure
    note(f"{one_line(str(output))} is written; goalrun flow check {one_line(str(output))} proves it")
    return 0


def _beside(file: Path, name: str) -> str | None:
    """The saved definition that has a name: pi-taskflow keeps them in one folder, each in NAME.json."""
    path = file.parent / f"{name}.json"
    return read_text(path) if FLOW_NAME.fullmatch(name) and path.is_file() else None

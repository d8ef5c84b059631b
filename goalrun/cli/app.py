"""The entry point, and the one place where errors become exit codes."""

import os
import sys
from contextlib import suppress

from goalrun import TYPE_CHECKING, __version__

if TYPE_CHECKING:
    from typing import IO

BUG = 1
USAGE = 2
INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        # Before anything slow is imported.
        sys.stdout.write(f"goalrun {__version__}\n")
        sys.exit(0)
    _open_streams()
    sys.exit(_flushed(_guarded()))


def _open_streams() -> None:
    """Give what the caller closed (``>&-``) somewhere to go, so that no file of ours gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.dup2(descriptor, number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def _flushed(code: int) -> int:
    """The exit code, once everything is said; where that cannot be, a result was not delivered."""
    from goalrun.errors import GoalrunError

    try:
        sys.stdout.flush()
    except OSError as failure:
        _silence(sys.stdout)
        if not isinstance(failure, BrokenPipeError) and code != GoalrunError.exit_code:
            why = f"cannot write to standard output: {failure.strerror}"
            code = _complain(why, "goalrun status shows it again", code or GoalrunError.exit_code)
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    return code


def _silence(stream: "IO[str]") -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _guarded() -> int:  # noqa: PLR0911 - one return per kind of end
    import typer
    from typer.exceptions import TyperException

    # Each of them adds its commands to the same app.
    from goalrun.cli import examples, fleet_commands, flow_commands, setup_commands  # noqa: F401
    from goalrun.cli.commands import app
    from goalrun.errors import GoalrunError, of_the_system

    examples.attach(app)
    try:
        return app(standalone_mode=False) or 0
    except TyperException as failure:
        say = getattr(failure, "format_message", None)
        return _complain(say() if callable(say) else str(failure), _help_for(failure), USAGE)
    except typer.Abort:
        return INTERRUPTED
    except GoalrunError as failure:
        return _complain(str(failure), failure.hint or failure.otherwise, failure.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough (`goalrun list | head`).
        _silence(sys.stdout)
        return 0
    except OSError as failure:
        problem = of_the_system(failure)
        return _complain(str(problem), problem.hint, problem.exit_code)
    except Exception as failure:  # noqa: BLE001 - the one boundary: a bug is told, logged, and never a traceback
        return _complain(*bug(failure), BUG)


def _help_for(failure: Exception) -> str:
    """The command whose help says more."""
    names: list[str] = []
    context = getattr(failure, "ctx", None)
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    return " ".join(["goalrun", *names, "--help"])


def _complain(message: str, hint: str, code: int) -> int:
    from goalrun.core.evidence import plain

    # One line first: what happened and why; what to do next on the second.
    with suppress(OSError):
        sys.stderr.write(f"goalrun: {' '.join(plain(message).split())}\n")
        if hint:
            sys.stderr.write(f"  try: {' '.join(plain(hint).split())}\n")
    return code


def bug(failure: Exception) -> tuple[str, str]:
    """What is told of a bug, and what to do; its traceback goes to a file, else to standard error."""
    import traceback

    from goalrun.adapters.home import home_folder

    text = "".join(traceback.format_exception(failure))
    path = home_folder() / "log" / f"bug-{os.getpid()}.log"
    where = f"; its log is {path}"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError:
        sys.stderr.write(text)
        where = ""
    return f"a bug in goalrun: {type(failure).__name__}: {failure}{where}", "report it with that log"

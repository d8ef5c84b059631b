"""Git, started by GitPython, with everything switched off that a repository could use to run code or to lie.

The home of GitPython. Nothing here writes to a repository that is not the caller's own store.
"""

import os
import re
import select
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, cast

from goalrun.adapters.clock import TICK_SECONDS
from goalrun.adapters.identity import GOAL_VARIABLE
from goalrun.adapters.points import reached
from goalrun.errors import GitFailed, UserError

if TYPE_CHECKING:
    from git.cmd import Git

OLDEST = (2, 32)
"""GIT_CONFIG_GLOBAL, which shuts out the user's configuration, came with 2.32 (git's release notes)."""

READ_BYTES = 1 << 16
SAFE_OPTIONS = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "core.sparseCheckout=false",
    "-c", "core.untrackedCache=false",
    "-c", "core.attributesFile=/dev/null",
    "-c", "core.excludesFile=/dev/null",
    "-c", "core.autocrlf=false",
    "-c", "core.fileMode=true",
    "-c", "core.symlinks=true",
    "-c", "core.trustctime=true",
    "-c", "core.quotePath=false",
    "-c", "core.pager=cat",
    "-c", "protocol.allow=never",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "safe.directory=*",
    "-c", "advice.addEmbeddedRepo=false",
)  # fmt: skip

NAME, EMAIL = "goalrun", "goalrun@localhost"
"""Who writes commits."""
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": NAME,
    "GIT_AUTHOR_EMAIL": EMAIL,
    "GIT_COMMITTER_NAME": NAME,
    "GIT_COMMITTER_EMAIL": EMAIL,
    "LC_ALL": "C.UTF-8",
}


class Output(NamedTuple):
    """What a git command printed, and its exit status."""

    status: int
    stdout: bytes
    stderr: str


def forget_git_variables() -> None:
    """Take git's own variables out of this process's environment.

    A git hook that calls goalrun passes GIT_DIR and GIT_INDEX_FILE on; they would send every command here to the
    user's repository. GitPython builds each child's environment from this process's.
    """
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]


def mark(goal: str) -> None:
    """Have every git of this process carry a goal's id: one that outlives this process is reaped with the rest."""
    _ENVIRONMENT[GOAL_VARIABLE] = goal


@cache
def program() -> str:
    """The git that this process uses: found once, before any worker can put another one in front of it.

    Raises:
        UserError: there is none.
    """
    found = shutil.which("git")
    if found is None:
        raise UserError("git is not on PATH", hint="install git 2.32 or newer")
    return os.path.realpath(found)


def require_git() -> str:
    """The version of the git on PATH.

    Raises:
        UserError: there is none, or it is too old.
    """
    status, stdout, _ = run(["--version"], Path("/"))
    found = re.search(rb"(\d+)\.(\d+)[.\w]*", stdout)
    if status != 0 or found is None:
        raise UserError("git on PATH does not say its version", hint="install git 2.32 or newer")
    if (int(found[1]), int(found[2])) < OLDEST:
        version = found[0].decode("ascii")
        raise UserError(f"git {version} is too old: goalrun needs 2.32 or newer", hint="install a newer git")
    return found[0].decode("ascii")


def run(
    arguments: Sequence[str | bytes],
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
) -> Output:
    """Run git and return what it said, whatever its exit status.

    Raises:
        GitFailed: git cannot be started.
    """
    # GitPython looks for git when it is imported; whether there is one was asked before.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

    return _execute(arguments, cwd, env, stdin, None)


def stream(
    arguments: Sequence[str | bytes],
    cwd: Path,
    env: Mapping[str, str] | None,
    output: IO[bytes],
    stdin: IO[bytes] | None = None,
) -> None:
    """Run git with its standard output into a file, for what may be larger than memory.

    Raises:
        GitFailed: git cannot be started, or does not succeed.
    """
    finished = _execute(arguments, cwd, env, stdin, output)
    output.flush()
    require_success(arguments, finished)


def follow(
    arguments: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    poll: Callable[[int], None],
    stdin: IO[bytes] | None = None,
) -> Output:
    """Run git where that can take long; of what it said, the beginning.

    Args:
        arguments: git's.
        cwd: where.
        env: variables.
        poll: called again and again with the number of lines printed so far; what it raises ends git.
        stdin: what it reads.
    """
    reached(f"git {_verb(arguments)} before")
    running, lines = _begun(arguments, cwd, env, stdin), 0
    process = running.proc
    assert process is not None  # noqa: S101 - just started; for the type checker
    said: dict[IO[bytes], bytes] = {}
    try:
        open_streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        while open_streams:
            poll(lines)
            for stream in select.select(open_streams, [], [], TICK_SECONDS)[0]:
                data = os.read(stream.fileno(), READ_BYTES)
                lines += data.count(b"\n")
                said[stream] = (said.get(stream, b"") + data)[:READ_BYTES]
                if not data:
                    open_streams.remove(stream)
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    finally:
        process.communicate()
    reached(f"git {_verb(arguments)} after")
    out, err = (said.get(stream, b"") if stream is not None else b"" for stream in (process.stdout, process.stderr))
    return Output(int(process.returncode), out, err.decode("utf-8", "replace"))


@contextmanager
def beside(arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator[Callable[[], bytes]]:
    """Run git while something else is done. What is given waits for its end, and returns its standard output.

    Raises:
        GitFailed: git cannot be started; when its end is waited for: it does not succeed.
    """
    reached(f"git {_verb(arguments)} before")
    running = _begun(arguments, cwd, env)
    process = running.proc
    assert process is not None  # noqa: S101 - just started; for the type checker

    def ended() -> bytes:
        out, err = process.communicate()
        reached(f"git {_verb(arguments)} after")
        require_success(arguments, Output(int(process.returncode), out, err.decode("utf-8", "replace")))
        return bytes(out)

    try:
        yield ended
    finally:
        process.communicate()


def _begun(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: IO[bytes] | None = None
) -> "Git.AutoInterrupt":
    # What it returns ends the process once nobody holds it.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from git.cmd import Git
    from git.exc import GitCommandNotFound

    words, variables = [program(), *SAFE_OPTIONS, *arguments], {**_ENVIRONMENT, **env}
    try:
        return Git(str(cwd)).execute(
            words, istream=cast("BinaryIO | None", stdin), as_process=True, env=variables, start_new_session=True
        )
    except (GitCommandNotFound, OSError) as failure:
        raise GitFailed(f"git cannot be started in {cwd}: {failure}") from failure


def _execute(
    arguments: Sequence[str | bytes],
    cwd: Path,
    env: Mapping[str, str] | None,
    stdin: IO[bytes] | None,
    output: IO[bytes] | None,
) -> Output:
    # GitPython looks for git when it is imported; whether there is one is asked in `program`.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from git.cmd import Git
    from git.exc import GitCommandNotFound

    verb = _verb(arguments)
    reached(f"git {verb} before")
    try:
        result = Git(str(cwd)).execute(
            [program(), *SAFE_OPTIONS, *(os.fsdecode(argument) for argument in arguments)],
            istream=cast("BinaryIO | None", stdin),
            output_stream=cast("BinaryIO | None", output),
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            env={**_ENVIRONMENT, **(env or {})},
            # Ctrl-C in a terminal is for goalrun alone: half a snapshot helps nobody.
            start_new_session=True,
        )
    except (GitCommandNotFound, OSError) as failure:
        raise GitFailed(f"git cannot be started in {cwd}: {failure}") from failure
    reached(f"git {verb} after")
    status, stdout, stderr = cast("tuple[int, bytes | None, str]", result)
    return Output(status, stdout or b"", stderr)


def checked(
    arguments: Sequence[str | bytes],
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
) -> bytes:
    """Run git and return its standard output.

    Raises:
        GitFailed: git cannot be started, or does not succeed.
    """
    output = run(arguments, cwd, env, stdin)
    require_success(arguments, output)
    return output.stdout


def require_success(arguments: Sequence[str | bytes], output: Output) -> None:
    """Refuse what git did not do.

    Raises:
        GitFailed: its exit status says so.
    """
    if output.status != 0:
        said = " ".join(output.stderr.split())[:500]
        raise GitFailed(f"git {_verb(arguments)} failed with status {output.status}: {said}")


def _verb(arguments: Sequence[str | bytes]) -> str:
    return next((os.fsdecode(word) for word in arguments if not os.fsdecode(word).startswith("-")), "git")

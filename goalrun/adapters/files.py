"""Files that appear whole or not at all, and folders that only their owner can read."""

import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from goalrun.adapters.points import reached
from goalrun.errors import EnvironmentFailure


def private_folder(path: Path) -> Path:
    """Make a folder, and the missing ones above it, with mode 0700.

    Raises:
        EnvironmentFailure: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as failure:
        raise EnvironmentFailure(f"cannot make the folder {path}: {failure.strerror}") from failure
    return path


def write_whole(path: Path, content: str | bytes, *, durable: bool = True, draft: str = ".") -> None:
    """Replace a file so that a reader, or a crash, sees the old content or the new, and nothing between.

    Args:
        path: the file; only its owner can read it.
        content: all of it.
        durable: it has to be there after the power was cut, too.
        draft: how the name begins that it has until it is whole.

    Raises:
        EnvironmentFailure: it cannot be written.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    temporary = path.with_name(f"{draft}{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        reached("file written")
        temporary.replace(path)
        reached("file renamed")
        if durable:
            sync_folder(path.parent)
    except OSError as failure:
        with suppress(OSError):
            temporary.unlink()
        raise EnvironmentFailure(f"cannot write {path}: {failure.strerror}", hint="make room, then resume") from failure


def require_same(folder: Path, known: tuple[int, int] | None) -> None:
    """Refuse a folder that is not the one that was known at its place.

    Raises:
        EnvironmentFailure: it is gone, or another folder is there.
    """
    now = identity_of(folder)
    if now is None or now != known:
        what = "is gone" if now is None else "is another folder now"
        raise EnvironmentFailure(
            f"the workspace {what}: {folder} was moved, replaced or unmounted",
            hint="bring it back, then goalrun resume",
        )


def identity_of(folder: Path) -> tuple[int, int] | None:
    """(device, inode) of a folder; None if there is none."""
    with suppress(OSError):
        if folder.is_dir():
            status = folder.stat()
            return status.st_dev, status.st_ino
    return None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, head: int, tail: int) -> str:
    """The head and the tail of a file as text, the gap counted; undecodable bytes become U+FFFD."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= head + tail:
            return file.read().decode("utf-8", "replace")
        first = file.read(head).decode("utf-8", "replace")
        file.seek(size - tail)
        last = file.read(tail).decode("utf-8", "replace")
    return f"{first}\n[… {size - head - tail} bytes left out …]\n{last}"


def remove_tree(path: Path) -> None:
    """Remove a folder and everything below it, also where a command took the permissions away.

    Links are removed, never followed. What somebody else removes meanwhile is gone as well.

    Raises:
        EnvironmentFailure: something cannot be removed.
    """
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        with suppress(OSError, RecursionError):
            shutil.rmtree(path)
            return
        _remove_carefully(path)
    except OSError as failure:
        raise EnvironmentFailure(f"cannot remove {failure.filename or path}: {failure.strerror}") from failure


def _remove_carefully(top: Path) -> None:
    """The same where permissions were taken away, somebody else removes things too, or paths are too long.

    Each folder is moved to the top before it is read: however deep it lies, its path stays short.
    """
    token, waiting = secrets.token_hex(8), [top]
    for folder in waiting:
        with suppress(FileNotFoundError):
            folder.chmod(0o700)
            for entry in [*os.scandir(folder)]:
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        Path(entry).chmod(0o700)
                        waiting.append(Path(entry).rename(top / f"{token}-{len(waiting)}"))
                    else:
                        Path(entry).unlink()
    for folder in reversed(waiting):
        with suppress(FileNotFoundError):
            folder.rmdir()


def in_the_way(top: bytes, new: Iterable[bytes], gone: Collection[bytes]) -> bytes | None:
    """A file below ``top`` that making ``new`` would destroy and that is not in ``gone``; None if there is none."""
    for path in new:
        parts = path.split(b"/")
        for place in (b"/".join(parts[:count]) for count in range(1, len(parts) + 1)):
            full = os.path.join(top, place)  # noqa: PTH118 - bytes
            if os.path.lexists(full) and (os.path.islink(full) or not os.path.isdir(full)):  # noqa: PTH112, PTH114
                if place not in gone:
                    return place
                break
        else:
            for below in files_below(os.path.join(top, path)):  # noqa: PTH118 - bytes
                if (left := os.path.relpath(below, top)) not in gone:
                    return left
    return None


def files_below(folder: bytes) -> Iterator[bytes]:
    """Files and links below a folder, however deep they lie; what cannot be read is passed over."""
    waiting = [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry.path

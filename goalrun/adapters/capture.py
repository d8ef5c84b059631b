"""One output of a command into one file: bounded, without secrets. Of the supervisor: the standard library alone."""

import contextlib
import errno
import os
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHUNK = 1 << 16


class Capture:
    """One output stream into one file: the head as it comes, the tail at the end, the gap counted.

    Known secrets are replaced before anything is written; a piece of output that may be the beginning of a
    secret waits for what follows it.
    """

    def __init__(self, source: int, path: str, head: int, tail: int, secrets: list[bytes]) -> None:
        self.source = source
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.head = head
        self.tail = tail
        self.secrets = secrets
        self.held = b""
        self.kept: deque[bytes] = deque()
        self.kept_bytes = 0
        self.left_out = 0
        self.error = ""
        self.open = True

    def drain(self) -> bool:
        """Read once; False at the end of the stream or when nothing is there."""
        try:
            data = os.read(self.source, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.open = False
            return False
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        if self.head > 0:
            data = self._redacted(self.held + data)
            self.held = self._beginning_of_secret(data)
            data = data[: len(data) - len(self.held)]
            self._write(data[: self.head])
            data, self.head = data[self.head :], max(0, self.head - len(data))
            if self.head > 0:
                return
            data, self.held = data + self.held, b""
        if data:
            self.kept.append(data)
            self.kept_bytes += len(data)
        # One chunk more than the tail is kept, so that a secret cut by the edge is still seen whole.
        while self.kept and self.kept_bytes - len(self.kept[0]) > self.tail + CHUNK:
            gone = self.kept.popleft()
            self.kept_bytes -= len(gone)
            self.left_out += len(gone)

    def _redacted(self, data: bytes) -> bytes:
        for secret in self.secrets:
            data = data.replace(secret, b"[redacted]")
        return data

    def _beginning_of_secret(self, data: bytes) -> bytes:
        longest = 0
        for secret in self.secrets:
            for size in range(min(len(secret) - 1, len(data)), longest, -1):
                if data.endswith(secret[:size]):
                    longest = size
                    break
        return data[len(data) - longest :]

    def _end_of_secret(self, data: bytes) -> int:
        """How many bytes at the front may belong to a secret that begins in what was left out."""
        ends = (size for secret in self.secrets for size in range(1, len(secret)) if data.startswith(secret[-size:]))
        return max(ends, default=0)

    def _write(self, data: bytes) -> None:
        try:
            while data and not self.error:
                data = data[os.write(self.file, data) :]
        except OSError as failure:
            self._fail(failure)

    def _fail(self, failure: OSError) -> None:
        """Evidence that lacks a part is none; on a full disk its room is needed to record the failure."""
        self.error = os.strerror(failure.errno or errno.EIO)
        with contextlib.suppress(OSError):
            os.ftruncate(self.file, 0)

    def close(self) -> "dict[str, Any]":
        """Write what was kept, and make the file durable."""
        rest = self.held + b"".join(self.kept)
        if self.left_out:
            rest = rest[self._end_of_secret(rest) :]
        rest = self._redacted(rest)
        over = max(0, len(rest) - self.tail)
        left_out = self.left_out + over
        if left_out:
            self._write(b"\n[... %d bytes left out ...]\n" % left_out)
        self._write(rest[over:])
        try:
            # Of an output that is empty nothing can be lost.
            if os.fstat(self.file).st_size:
                os.fsync(self.file)
        except OSError as failure:
            self._fail(failure)
        os.close(self.file)
        return {"left_out": left_out, "error": self.error}

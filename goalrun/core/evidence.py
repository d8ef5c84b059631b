"""Text from outside, made safe to store, show and hand on: redacted, stripped, bounded, fenced.

Redaction comes before cutting, so that no half of a secret survives a cut.
"""

import json
import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
MIN_SECRET_CHARS = 8
"""Shorter values are too common to be replaced wherever they stand."""

_SECRET_NAME = re.compile(
    r"(?:^|[_-])(?:api[_-]?key|key|token|secret|password|passwd|credentials?|auth|cookie|dsn|"
    r"database[_-]?url|private[_-]?key|access[_-]?key[_-]?id|session[_-]?id)$|[_-]pwd$",
    re.IGNORECASE,
)
_NOT_SECRET_NAME = re.compile(
    # Counts, and the one well-known name whose value is a path.
    r"(?:max|num|count|limit|total)[_-]?tokens?$|google[_-]application[_-]credentials$",
    re.IGNORECASE,
)

_PATH = re.compile(r"(?:/[\w.@-]+){2,}/?")
_SURELY_SECRET = re.compile(r"secret|token|passw|[_-]pwd", re.IGNORECASE)

# Shapes of well-known credentials; the sources are the providers' own documentation of their prefixes. What comes last
# in one has no longest length: nothing of a secret may be left over.
_SECRET_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s]{0,8000}-----END [A-Z ]{0,30}PRIVATE KEY-----"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{30,}"
    r"|\bglpat-[A-Za-z0-9_-]{18,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}"
    r"|\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|\bhf_[A-Za-z0-9]{30,}"
    r"|\bnpm_[A-Za-z0-9]{30,}"
    r"|\bpypi-[A-Za-z0-9_-]{40,}"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,}"
)
_SECRET_HEADER = re.compile(r"(?i)\b((?:authorization|x-api-key)\s*[:=]\s*(?:bearer\s+|basic\s+)?)[^\s\"']{8,}")
_SECRET_ASSIGNMENT = re.compile(
    r"(?i)\b((?:[a-z0-9]{1,40}[_-]){0,4}(?:api[_-]?key|secret|password|passwd|access[_-]?token|auth[_-]?token)"
    r"[\"']?\s{0,3}[:=]\s{0,3}[\"']?)[^\s\"',;]{8,}"
)
_ANSI = re.compile(r"\x1b(?:\[[0-?]{0,40}[ -/]{0,10}[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)|[@-Z\\-_])")


# Drawn as nothing, though Unicode counts them as marks or letters: fillers and variation selectors.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")

_ASCII_CONTROLS = {number: None for number in (*range(32), 127) if chr(number) not in "\n\t"}


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values in an environment that must never be written down, in all their forms, longest first."""
    found = {form for name, value in environment.items() if _is_secret(name, value) for form in forms(value)}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def forms(secret: str) -> Iterator[str]:
    """A secret as it is, as it stands in an address or a JSON text, and inside of anything in base64."""
    yield secret
    yield quote(secret)
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    raw = secret.encode("utf-8", "surrogateescape")
    # What stands before it shifts its bits: three ways to be encoded, without the characters that others share.
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        text = b64encode(b"\0" * before + raw).decode("ascii")[first:last]
        yield text
        yield text.replace("+", "-").replace("/", "_")


def _is_secret(name: str, value: str) -> bool:
    if len(value) < MIN_SECRET_CHARS or not _SECRET_NAME.search(name) or _NOT_SECRET_NAME.search(name):
        return False
    # The path of a key file is no secret, and blotting it out would make evidence useless.
    return bool(_SURELY_SECRET.search(name)) or not _PATH.fullmatch(value)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace known secrets by value, and what looks like a credential by shape."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    text = _SECRET_SHAPES.sub(REDACTED, text)
    text = _SECRET_HEADER.sub(rf"\g<1>{REDACTED}", text)
    return _SECRET_ASSIGNMENT.sub(rf"\g<1>{REDACTED}", text)


def plain(text: str) -> str:
    """Without terminal escapes, control characters and invisible ones; newlines and tabs stay."""
    text = _INVISIBLE.sub("", _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    if text.isascii():
        return text.translate(_ASCII_CONTROLS)
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co"})


def one_line(text: str, limit: int = 300) -> str:
    """A text as one bounded line, safe for a terminal."""
    line = " ".join(plain(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def count(number: int, noun: str) -> str:
    """A number and its noun: ``1 file``, ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def bounded(text: str, limit: int) -> str:
    """At most about ``limit`` characters: a third from the head, the rest from the tail, the gap counted."""
    if len(text) <= limit:
        return text
    head, tail = limit // 3, limit - limit // 3
    left_out = len(text) - head - tail
    return f"{text[:head]}\n[… {left_out} characters left out …]\n{text[-tail:]}"


def clean(text: str, limit: int, secrets: Iterable[str] = ()) -> str:
    """Redacted, plain and bounded, in this order."""
    known = tuple(secrets)
    # Again afterwards: without the invisible characters between them, two halves can be a secret.
    return bounded(redact(plain(redact(text, known)), known), limit)


def fenced(text: str, token: str, what: str) -> str:
    """Data between delimiters that the data cannot contain, because the token is fresh."""
    return f"<{what}-{token}>\n{text.replace(token, '...')}\n</{what}-{token}>"


def as_json(text: str) -> str:
    """Data as one JSON string: no line of it can look like anything else."""
    return json.dumps(text, ensure_ascii=True)

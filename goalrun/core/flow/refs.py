"""Placeholders in a flow's texts: ``{args.topic}``, ``{steps.plan.output}``, ``{needs}``, ``{item}``."""

import json
import re
from collections.abc import Callable, Collection

from goalrun.core.value import Json

Ref = tuple[str, ...]
"""The segments of a placeholder, as in ``("steps", "plan", "json", "route")``."""
Lookup = Callable[[Ref], Json]
"""The value of a placeholder; null where there is none."""
ROOTS = frozenset({"args", "steps", "needs", "previous", "goal", "item"})
"""What a placeholder may begin with, beside the name that a step's ``as`` gives; other braces are text."""
PLACEHOLDER = re.compile(r"\{([\w-]+(?:\.[\w-]+)*)\}")


def find(text: str, roots: Collection[str] = ROOTS) -> list[Ref]:
    """The placeholders in a text, each once, in order."""
    found = (tuple(match[1].split(".")) for match in PLACEHOLDER.finditer(text))
    return list(dict.fromkeys(ref for ref in found if ref[0] in roots))


def fill(text: str, lookup: Lookup, roots: Collection[str] = ROOTS) -> str:
    """The text with a value in the place of each placeholder; what a value says is not filled again."""

    def value(match: re.Match[str]) -> str:
        ref = tuple(match[1].split("."))
        return as_text(lookup(ref)) if ref[0] in roots else match[0]

    return PLACEHOLDER.sub(value, text)


def shown(ref: Ref) -> str:
    """A placeholder as it is written."""
    return "{" + ".".join(ref) + "}"


def as_text(value: Json) -> str:
    """A value as text: a string as it is, null as nothing, everything else as JSON with an indent of two."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def field(value: Json, path: Ref) -> Json:
    """What is at a path inside a value, list elements by number; null where there is nothing."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list | tuple) and part.isdecimal() and len(part) < 10 and int(part) < len(value):  # noqa: PLR2004
            value = value[int(part)]
        else:
            return None
    return value

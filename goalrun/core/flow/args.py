"""Arguments of a flow, from words on a command line or from the ``with`` of another flow."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from math import isfinite
from pathlib import PurePosixPath

from goalrun.core.flow.model import Arg
from goalrun.core.value import Json
from goalrun.errors import SpecError, meant

_PAIR = re.compile(r"([A-Za-z_][\w-]*)=(.*)", re.DOTALL)
_QUOTED = re.compile(r"""(["'])(.*)\1""", re.DOTALL)


def read_args(words: Sequence[str], declared: Mapping[str, Arg]) -> dict[str, Json]:
    """The arguments that words give, with defaults; values of ``name=value`` are text, as their systems have it.

    One word that is a JSON object gives all arguments. Else words ``name=value`` give those, and all other words
    together the first one that is declared; so does a single word with an ``=`` that is no argument's.

    Raises:
        SpecError: one is unknown, missing, given twice, or not of its type.
    """
    given = _as_object(words) if len(words) == 1 else None
    return complete(_as_pairs(words, declared) if given is None else given, declared)


def complete(given: Mapping[str, Json], declared: Mapping[str, Arg], later: Collection[str] = ()) -> dict[str, Json]:
    """What is given, and the defaults of what is not; null where there is none.

    Args:
        given: by name.
        declared: what the flow takes.
        later: those whose value is not known yet.

    Raises:
        SpecError: one is unknown, missing, or not of its type.
    """
    for name in given:
        if name not in declared:
            raise SpecError(f"there is no argument {name!r}", hint=_known(name, declared))
    missing = [name for name, arg in declared.items() if arg.required and given.get(name) is None]
    if missing:
        told = "; ".join(f"{name}: {declared[name].help}" if declared[name].help else name for name in missing)
        raise SpecError(f"missing {'argument' if len(missing) == 1 else 'arguments'}: {told}", hint=f"{missing[0]}=…")
    whole = {name: given.get(name, arg.default) for name, arg in declared.items()}
    for name in whole.keys() - set(later):
        try:
            whole[name] = fitted(declared[name], whole[name])
        except ValueError as failure:
            raise SpecError(f"argument {name!r}: {failure}", hint=declared[name].help) from failure
    return whole


def fitted(arg: Arg, value: Json) -> Json:
    """A value as its argument has it; null stays null.

    Raises:
        ValueError: it is none of that kind, or none that is allowed.
    """
    if value is None:
        return None
    shown = " ".join((value if isinstance(value, str) else json.dumps(value)).split())[:60]
    if isinstance(value, str) and arg.type in {"int", "number", "bool", "json"}:
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if arg.type is not None and not _IS[arg.type](value):
        raise ValueError(f"{shown} is not {_SAID[arg.type]}")
    if arg.enum and value not in arg.enum:
        raise ValueError(f"{shown} is none of {', '.join(map(str, arg.enum))}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if arg.min is not None and value < arg.min:
            raise ValueError(f"{shown} is less than {arg.min:g}")
        if arg.max is not None and value > arg.max:
            raise ValueError(f"{shown} is more than {arg.max:g}")
    return value


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_inside(value: Json) -> bool:
    path = PurePosixPath(value) if isinstance(value, str) and value and "\0" not in value else None
    return path is not None and not path.is_absolute() and ".." not in path.parts


_IS: Mapping[str, Callable[[Json], bool]] = {
    "string": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "path": _is_inside,
    "json": lambda value: not isinstance(value, str),
}
_SAID = {
    "string": "text", "int": "a whole number", "number": "a number", "bool": "true or false",
    "path": "a relative path that stays inside", "json": "JSON",
}  # fmt: skip


def _as_object(words: Sequence[str]) -> dict[str, Json] | None:
    if not words[0].lstrip().startswith("{"):
        return None
    try:
        value = json.loads(words[0])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _as_pairs(words: Sequence[str], declared: Mapping[str, Arg]) -> dict[str, Json]:
    given: dict[str, Json] = {}
    rest = []
    for word in words:
        pair = _PAIR.fullmatch(word)
        if pair is None or (pair[1] not in declared and len(words) == 1 and not _near(pair[1], declared)):
            rest.append(word)
        elif pair[1] in given:
            raise SpecError(f"argument {pair[1]!r} is given twice")
        else:
            quoted = _QUOTED.fullmatch(pair[2])
            given[pair[1]] = quoted[2] if quoted else pair[2]
    text = " ".join(rest).strip()
    if not text:
        return given
    first = next(iter(declared), None)
    if first is None:
        raise SpecError(f"the flow takes no arguments; {text[:60]!r} is given")
    if first in given:
        raise SpecError(
            f"argument {first!r} is given twice: by name, and as {text[:60]!r}", hint="put quotes around it"
        )
    return {first: text, **given}


def _near(name: str, declared: Mapping[str, Arg]) -> list[str]:
    return get_close_matches(name, declared, 1, 0.75)


def _known(name: str, declared: Mapping[str, Arg]) -> str:
    return meant(name, declared, f"known: {', '.join(declared)}" if declared else "it takes none", cutoff=0.75)

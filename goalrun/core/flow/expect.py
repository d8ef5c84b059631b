"""What a step's JSON has to be."""

import json
from collections.abc import Iterator

from goalrun.core.flow.loose import find_json, kind_of
from goalrun.core.value import Json, JsonObject

Expect = str | JsonObject
TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
MAX_SHOWN_CHARS = 200


def answer(expect: Expect, text: str) -> tuple[Json, str]:
    """The JSON in an answer, and one line on why it is not what is expected; "" if it is."""
    try:
        value = find_json(text)
    except ValueError as failure:
        return None, f"expected JSON, but {failure}"
    return value, unmet(expect, value)


def unmet(expect: Expect, value: Json) -> str:
    """Why a value is not what is expected, on one line; "" if it is."""
    if expect == "json":
        return ""
    if expect == "array":
        return "" if isinstance(value, list | tuple) else f"expected a list, not {_short(value)}"
    if isinstance(expect, str):
        raise ValueError(f"the schema {expect!r} is not loaded")  # noqa: TRY004 - its value is wrong, not its type
    return _against_schema(expect, value) if is_schema(expect) else _against_table(expect, value)


def bad_expect(expect: Expect) -> str:
    """Why nothing could be held against it, on one line; "" if all is well."""
    if isinstance(expect, str):
        return "" if expect in {"json", "array"} else f"{expect!r} is neither json nor array nor a schema's file"
    if not is_schema(expect):
        return "" if expect else "the table of allowed values is empty"
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(expect, default=Draft202012Validator).check_schema(dict(expect))
    except (SchemaError, RecursionError) as failure:
        return f"it is no JSON Schema: {_line(getattr(failure, 'message', 'it is nested too deeply'))}"
    for target in _referred(dict(expect)):
        if not target.startswith("#"):
            return f"its $ref {_line(target)!r} is outside of it; nothing is fetched"
    return ""


def is_schema(expect: JsonObject) -> bool:
    """Whether a table is a JSON Schema, and not allowed values of fields."""
    kind = expect.get("type")
    kinds = kind if isinstance(kind, list | tuple) else [kind]
    return "$schema" in expect or all(isinstance(one, str) and one in TYPES for one in kinds)


def _against_table(allowed: JsonObject, value: Json) -> str:
    if not isinstance(value, dict):
        return f"expected an object with {', '.join(allowed)}, not {_short(value)}"
    for key, wanted in allowed.items():
        choices: list[Json] = list(wanted) if isinstance(wanted, list) else [wanted]
        if key not in value:
            return f"expected {key} to be {_listed(choices)}; it is missing"
        # As JSON: Python takes true for 1.
        if _json(value[key]) not in [_json(choice) for choice in choices]:
            return f"expected {key} to be {_listed(choices)}, not {_short(value[key])}"
    return ""


def _against_schema(schema: JsonObject, value: Json) -> str:
    # Slow to import, and few flows have schemas.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # A registry of its own: the default one fetches what a schema refers to.
    validator = validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())
    try:
        worst = best_match(validator.iter_errors(value))
    except Unresolvable as failure:
        return f"the schema refers to {_line(failure.ref)!r}, which it does not hold"
    except RecursionError:
        return "the schema and the answer are nested too deeply to be compared"
    return f"{worst.json_path}: {_line(worst.message)}" if worst is not None else ""


def _referred(schema: Json) -> Iterator[str]:
    rest = [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest.extend(value.values())
            yield from (ref for key in ("$ref", "$dynamicRef") if isinstance(ref := value.get(key), str))
        elif isinstance(value, list):
            rest.extend(value)


def _json(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _listed(choices: list[Json]) -> str:
    return _line(" or ".join(json.dumps(choice, ensure_ascii=False) for choice in choices))


def _short(value: Json) -> str:
    return kind_of(value) if isinstance(value, dict | list | tuple) else _line(json.dumps(value, ensure_ascii=False))


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN_CHARS else line[: MAX_SHOWN_CHARS - 1] + "…"

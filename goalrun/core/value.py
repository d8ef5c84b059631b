"""What every value of the core is built from."""

import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints, WithJsonSchema

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Json = JsonValue
"""Anything that JSON can say."""
JsonObject = Mapping[str, JsonValue]
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """Seconds, from text like ``90``, ``90s``, ``30m``, ``1h30m``, ``2h``.

    Raises:
        ValueError: it is no duration.
    """
    pieces = re.fullmatch(r"((?:\d+(?:\.\d+)?[smhd])+)|(\d+(?:\.\d+)?)", text.strip())
    if pieces is None:
        raise ValueError(f"{text!r} is no duration; write 90s, 30m or 2h")
    if pieces[2]:
        return float(pieces[2])
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd])", text))


def seconds(value: object) -> object:
    """A duration where it is text; everything else as it is."""
    return duration(value) if isinstance(value, str) else value


_WRITTEN = WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]})
Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=1), _WRITTEN]
Pause = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=60), _WRITTEN]
"""A short duration, or none."""


class Value(BaseModel):
    """Base of every value: frozen and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def but(self, **changes: object) -> Self:
        """The same with other values in these fields, which are validated.

        Every field counts as given then: where that means something (flows), ``model_copy`` keeps it.
        """
        return type(self)(**{**dict(self), **changes})

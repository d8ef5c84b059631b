"""The program in which a function of a flow runs: ``python -m goalrun.api.child``, started by goalrun alone."""

import asyncio
import inspect
import json
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from goalrun.api import told
from goalrun.api.calls import Call, CallFailed, Here, Run, Several
from goalrun.api.line import Line, Lost, connect

FAILED = 1


def main() -> None:
    """Run the function and say what it returned; ends the process, whatever else runs in it."""
    line = connect()
    code = _served(line)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that wait for calls that nobody makes any more must not keep the process.
    os._exit(code)


def _served(line: Line) -> int:
    try:
        order = line.ask("start").result()
        Here.line, Here.run = line, Run(order)
        value = _value(_function(order), Here.run)
        for several in Here.several:
            several.wait()
        line.quiet()
        end = {"value": _plain(value), "call": getattr(getattr(value, "_future", None), "number", 0)}
    except (Exception, SystemExit, KeyboardInterrupt) as failure:  # noqa: BLE001 - the one boundary of the user's code
        traceback.print_exc()
        cause = failure.call if isinstance(failure, CallFailed) else None
        end = {"failure": told(failure), "call": getattr(getattr(cause, "_future", None), "number", 0)}
    try:
        line.ask("end", **end).result()
    except (Lost, ValueError) as failure:
        sys.stderr.write(f"{failure}\n")
    return FAILED if "failure" in end else 0


def _function(order: dict[str, Any]) -> Callable[..., Any]:
    """The function, from its file as it was when the flow was read."""
    path, text = str(order["file"]), str(order["code"])
    # As for a script: what is beside it can be imported.
    sys.path.insert(0, os.path.dirname(path))  # noqa: PTH120 - starts in milliseconds: no pathlib
    name = os.path.basename(path).removesuffix(".py")  # noqa: PTH119 - the same
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    exec(compile(text, path, "exec"), module.__dict__)  # noqa: S102 - the user's own code is what this process is for
    function: Callable[..., Any] = getattr(module, order["function"])
    return function


def _value(function: Callable[..., Any], run: Run) -> Any:  # noqa: ANN401 - what the user's function gives
    value = function(run) if inspect.signature(function).parameters else function()
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    return value.wait() if isinstance(value, Call | Several) else value


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON can say
    """What a function returned, as JSON says it.

    Raises:
        TypeError: JSON cannot.
    """
    if isinstance(value, Call):
        return value.text if value.json is None else value.json
    try:
        return json.loads(json.dumps(value, default=_as_json, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as failure:
        raise TypeError(f"what the function returned is not JSON: {failure}") from failure


def _as_json(value: object) -> object:
    if isinstance(value, Call):
        return {"status": value.status, "reason": value.reason, "text": value.text, "json": value.json}
    if isinstance(value, Several):
        return value.wait()
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    raise TypeError(f"a value of type {type(value).__name__}")


if __name__ == "__main__":
    main()

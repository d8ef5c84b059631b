"""Calls of a worker in Python, one or several, and the run that they are of."""

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, NamedTuple, cast, overload

from goalrun.api.line import Line

seen_calls: ContextVar[set[int]] = ContextVar("goalrun_seen")


class Amount(NamedTuple):
    """Money and tokens; None is unknown, or, of what is left, without a limit."""

    usd: float | None
    tokens: int | None


class CallFailed(Exception):
    """A call is not done; ``call`` says why."""

    def __init__(self, call: "Call") -> None:
        super().__init__(f"{call.name}: {call.reason or call.status}")
        self.call = call


class Call:
    """One call: it has started, and everything that it says of itself waits until it is over.

    Await it, or just look at it. It does not raise because the call failed: ``ok`` and ``reason`` say so, and
    ``or_fail`` raises.
    """

    def __init__(self, name: str, future: Future[Any], schema: object = None, *, firm: bool = False) -> None:
        self.name = name
        self._future = future
        self._schema = schema
        self._firm = firm

    @property
    def ok(self) -> bool:
        """Whether it is done."""
        return self.status == "done"

    @property
    def status(self) -> str:
        """``done``, ``failed`` or ``blocked``."""
        return str(self._said("status"))

    @property
    def reason(self) -> str:
        """Why it is not done, on one line."""
        return str(self._said("reason"))

    @property
    def text(self) -> str:
        """What was said."""
        return str(self._said("text"))

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever JSON can say
        """The JSON in it; None where there is none."""
        return self._said("json")

    @property
    def value(self) -> Any:  # noqa: ANN401 - the schema's class
        """The same as an object of the class that was given as ``schema``; the JSON itself without one.

        Raises:
            pydantic.ValidationError: a validator of the class refuses it.
        """
        found = self.json
        validate = getattr(self._schema, "model_validate", None)
        return validate(found) if validate is not None and self.ok else found

    @property
    def diff(self) -> str:
        """What it changed in the files, as a bounded patch."""
        self.wait()
        number = getattr(self._future, "number", 0)
        return str(own_line().ask("diff", call=number).result()) if number else ""

    @property
    def usage(self) -> Amount:
        """What it spent."""
        return Amount(self._said("usd"), self._said("tokens"))

    @property
    def cached(self) -> bool:
        """Whether it was taken from an earlier run."""
        return bool(self._said("cached"))

    @property
    def seconds(self) -> float:
        """How long it took."""
        return float(self._said("seconds"))

    def wait(self) -> "Call":
        """Wait until it is over."""
        self._future.result()
        return self._seen()

    def or_fail(self) -> "Call":
        """The call itself, once it is done; in a coroutine await what this returns.

        Raises:
            CallFailed: it is not.
        """
        firm = Call(self.name, self._future, self._schema, firm=True)
        return firm if in_loop() and not self._future.done() else firm.wait()

    def __await__(self) -> "Generator[Any, None, Call]":
        yield from asyncio.wrap_future(self._future).__await__()
        return self._seen()

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<{self.name}: {self.status if self._future.done() else 'running'}>"

    def _said(self, key: str) -> Any:  # noqa: ANN401 - whatever JSON can say
        self.wait()
        return self._future.result().get(key)

    def _seen(self) -> "Call":
        number = getattr(self._future, "number", 0)
        if number:
            trail().add(number)
        if self._firm:
            self._firm = False
            if not self.ok:
                raise CallFailed(self)
        return self


class Several(Sequence[Any]):
    """What ``parallel`` and ``pipeline`` give: a list in the order of what went in. Await it, or just look at it."""

    def __init__(self, futures: list[Future[Any]], trails: list[set[int]]) -> None:
        self._futures = futures
        self._trails = trails

    def wait(self) -> list[Any]:
        """The list, once all of it is there."""
        return self._seen([future.result() for future in self._futures])

    def __await__(self) -> Generator[Any, None, list[Any]]:
        found = yield from asyncio.gather(*map(asyncio.wrap_future, self._futures)).__await__()
        return self._seen(found)

    @overload
    def __getitem__(self, index: int) -> Any: ...  # noqa: ANN401 - what went in
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.wait()[index]

    def __len__(self) -> int:
        return len(self._futures)

    def _seen(self, found: list[Any]) -> list[Any]:
        trail().update(*self._trails)
        return found


class Args(Mapping[str, Any]):
    """Arguments: ``args.what`` or ``args["what"]``."""

    def __init__(self, given: Callable[[], Mapping[str, Any]]) -> None:
        self._given = given

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever JSON can say
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._given()[name]
        except KeyError:
            known = ", ".join(self._given()) or "none"
            raise AttributeError(f"there is no argument {name!r}; known: {known}") from None

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - whatever JSON can say
        return self._given()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given())

    def __len__(self) -> int:
        return len(self._given())

    def __repr__(self) -> str:
        return repr(dict(self._given()))


class Run:
    """What a function is about: its first parameter, if it has one.

    Attributes:
        objective: of the goal around it; of a run of its own, what the flow is for.
        feedback: what the last turn of the goal failed at; "" in the first one.
        turn: of the goal, from 1.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.objective: str = order["objective"]
        self.feedback: str = order["feedback"]
        self.turn: int = order["turn"]
        given: Mapping[str, Any] = order["args"]
        self.args = Args(lambda: given)


class Here:
    """The run that this process is for."""

    line: Line | None = None
    run: Run | None = None
    several: list[Several] = []  # noqa: RUF012 - one process is for one run


def own_line() -> Line:
    """The line of this process to goalrun.

    Raises:
        RuntimeError: goalrun did not start it.
    """
    if Here.line is None:
        raise RuntimeError("this works only in a function that goalrun runs: goalrun flow run FILE.py:FUNCTION")
    return Here.line


def own_run() -> Run:
    """The run that this process is for; see ``own_line``."""
    own_line()
    return cast("Run", Here.run)


def trail() -> set[int]:
    """The calls of which this thread, or task, has seen the end: what it asks for next comes after them."""
    try:
        return seen_calls.get()
    except LookupError:
        seen_calls.set(set())
        return seen_calls.get()


def in_loop() -> bool:
    """Whether this is called in a coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

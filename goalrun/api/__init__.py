"""What a worker in Python uses: calls that start at once, can be awaited, and wait when they are looked at."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast, overload

from goalrun.api.line import Line

MAX_THREADS = 64
STAGE_ARGUMENTS = 3
T = TypeVar("T")


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

    def __init__(self, name: str, future: "Future[Any]", schema: object = None, *, firm: bool = False) -> None:
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
        return str(_line().ask("diff", call=number).result()) if number else ""

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
        return firm if _in_loop() and not self._future.done() else firm.wait()

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
            _trail().add(number)
        if self._firm:
            self._firm = False
            if not self.ok:
                raise CallFailed(self)
        return self


class Several(Sequence[Any]):
    """What ``parallel`` and ``pipeline`` give: a list in the order of what went in. Await it, or just look at it."""

    def __init__(self, futures: "list[Future[Any]]", trails: list[set[int]]) -> None:
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
        _trail().update(*self._trails)
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


class Budget:
    """What all calls of this run spend together."""

    @property
    def spent(self) -> Amount:
        """So far."""
        return Amount(*_line().ask("budget").result()["spent"])

    @property
    def left(self) -> Amount:
        """Of the flow's budget and the goal's limits, whichever is less."""
        return Amount(*_line().ask("budget").result()["left"])


class Here:
    """The run that this process is for."""

    line: Line | None = None
    run: Run | None = None
    several: list[Several] = []  # noqa: RUF012 - one process is for one run


args = Args(lambda: _run().args)
budget = Budget()
_seen_calls: ContextVar[set[int]] = ContextVar("goalrun_seen")


def agent(  # noqa: PLR0913 - options, by name
    name: str,
    prompt: str | None = None,
    *,
    schema: Any = None,  # noqa: ANN401 - a class of pydantic's, which is not imported here
    writes: bool = True,
    cache: bool = True,
    cache_tree: bool = True,
    retry: int = 0,
    timeout: float | str | None = None,
    env: Mapping[str, str] | None = None,
    label: str = "",
) -> Call:
    """Ask an agent; with one argument that is the prompt, and the flow's own agent is asked.

    Args:
        name: as in the flow's ``[agents.NAME]`` or the configuration.
        prompt: all that it is told.
        schema: a JSON Schema, or a pydantic model, that its answer has to fit; ``json`` and ``value`` are it.
        writes: False runs it read-only where that can be done, and leaves the files out of what it is recognised by.
        cache: False never takes its result from before.
        cache_tree: False recognises it whatever the files are.
        retry: how often it is asked again after a failure, being told what was wrong with its answer.
        timeout: seconds, or ``"20m"``.
        env: variables for its process.
        label: what it is called in lists; its name where there is none.
    """
    who, text = (name, prompt) if prompt is not None else ("", name)
    shape = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema
    fields = {"schema": shape, "writes": writes, "cache": cache, "cache_tree": cache_tree, "retry": retry,
              "timeout": timeout, "env": dict(env or {}), "label": label or who or "agent"}  # fmt: skip
    return _call("agent", label or who or "agent", schema, agent=who, prompt=str(text), **fields)


def flow(name: str, /, **given: Any) -> Call:  # noqa: ANN401 - whatever JSON can say
    """Run another flow: one of the file's ``[flows]``, or a saved one."""
    return _call("flow", name, flow=name, **{"with": given})


def ask(question: str) -> Call:
    """Ask a person. The run ends as waiting, and goes on from here once there is an answer."""
    return _call("ask", "ask", question=str(question))


def check(*commands: str) -> Call:
    """Verify the workspace as it is, in a clean worktree and the sandbox of checks, with each command in a shell."""
    return _call("check", "check", commands=[str(command) for command in commands])


def phase(title: str) -> None:
    """Say what begins now."""
    _line().tell("told", kind="phase", text=str(title))


def log(*words: object) -> None:
    """Say something for the progress and the logs."""
    _line().tell("told", kind="log", text=" ".join(map(str, words)))


def parallel(*work: Any) -> Several:  # noqa: ANN401 - calls, functions and coroutines
    """Wait for several at once: calls, functions without arguments, coroutines; a list of them too.

    What they give is in the order of ``work``. One that raises has a call in its place that failed, with the reason.
    """
    if len(work) == 1 and isinstance(work[0], list | tuple | Generator):
        work = tuple(work[0])
    calls = [each for each in work if not isinstance(each, Call | Several) and not callable(each)]
    if not all(map(inspect.iscoroutine, calls)):
        raise TypeError("parallel takes calls, functions and coroutines")
    futures: list[Future[Any]] = []
    trails: list[set[int]] = []
    pool = ThreadPoolExecutor(max_workers=max(1, min(len(work), MAX_THREADS)))
    for each in work:
        trail = set(_trail())
        context = copy_context()
        context.run(_seen_calls.set, trail)
        futures.append(pool.submit(context.run, _done, each))
        trails.append(trail)
    pool.shutdown(wait=False)
    Here.several.append(Several(futures, trails))
    return Here.several[-1]


def pipeline(items: Iterable[Any], *stages: Callable[..., Any]) -> Several:
    """Send items through stages, each as soon as it can; no item waits for another one.

    A stage is a function, or a coroutine function, of what the stage before gave, the item itself and its number from
    0; it may take fewer. An item goes no further where a call failed, or a stage raised.
    """

    def through(item: Any, number: int) -> Any:  # noqa: ANN401 - what stages give
        value = item
        for stage in stages:
            value = _resolved(stage(*(value, item, number)[: _takes(stage)]))
            if isinstance(value, Call) and not value.ok:
                break
        return value

    return parallel(*[partial(through, item, number) for number, item in enumerate(items)])


def _call(what: str, name: str, schema: object = None, /, **fields: object) -> Call:
    return Call(name, _line().ask(what, after=sorted(_trail()), **fields), schema)


def _line() -> Line:
    if Here.line is None:
        raise RuntimeError("this works only in a function that goalrun runs: goalrun flow run FILE.py:FUNCTION")
    return Here.line


def _run() -> Run:
    _line()
    return cast("Run", Here.run)


def _trail() -> set[int]:
    """The calls of which this thread, or task, has seen the end: what it asks for next comes after them."""
    try:
        return _seen_calls.get()
    except LookupError:
        _seen_calls.set(set())
        return _seen_calls.get()


def _done(work: Any) -> Any:  # noqa: ANN401 - what went in
    try:
        return _resolved(work() if callable(work) else work)
    except CallFailed as failure:
        return failure.call
    except Exception as failure:  # noqa: BLE001 - it becomes a result with a reason
        future: Future[Any] = Future()
        future.set_result({"status": "failed", "reason": told(failure), "text": "", "seconds": 0.0})
        return Call("function", future)


def _resolved(value: Any) -> Any:  # noqa: ANN401 - what went in
    if isinstance(value, Call | Several):
        return value.wait()
    # In a loop of its own: the one of whoever waits may be blocked by that.
    return asyncio.run(cast("Coroutine[Any, Any, Any]", value)) if inspect.iscoroutine(value) else value


def _takes(stage: Callable[..., Any]) -> int:
    kinds = [each.kind for each in inspect.signature(stage).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return STAGE_ARGUMENTS
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return min(STAGE_ARGUMENTS, sum(kind in positional for kind in kinds))


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def told(failure: BaseException) -> str:
    """An exception on one line, as the last of its traceback."""
    return " ".join(f"{type(failure).__name__}: {failure}".split()).removesuffix(":")[:1000]

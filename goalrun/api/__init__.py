"""What a worker in Python uses: calls that start at once, can be awaited, and wait when they are looked at."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, cast

from goalrun.api.calls import Amount, Args, Call, CallFailed, Here, Several, own_line, own_run, seen_calls, trail

MAX_THREADS = 64
STAGE_ARGUMENTS = 3


class Budget:
    """What all calls of this run spend together."""

    @property
    def spent(self) -> Amount:
        """So far."""
        return Amount(*own_line().ask("budget").result()["spent"])

    @property
    def left(self) -> Amount:
        """Of the flow's budget and the goal's limits, whichever is less."""
        return Amount(*own_line().ask("budget").result()["left"])


args = Args(lambda: own_run().args)
budget = Budget()


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
    own_line().tell("told", kind="phase", text=str(title))


def log(*words: object) -> None:
    """Say something for the progress and the logs."""
    own_line().tell("told", kind="log", text=" ".join(map(str, words)))


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
        now = set(trail())
        context = copy_context()
        context.run(seen_calls.set, now)
        futures.append(pool.submit(context.run, _done, each))
        trails.append(now)
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
    return Call(name, own_line().ask(what, after=sorted(trail()), **fields), schema)


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


def told(failure: BaseException) -> str:
    """An exception on one line, as the last of its traceback."""
    return " ".join(f"{type(failure).__name__}: {failure}".split()).removesuffix(":")[:1000]

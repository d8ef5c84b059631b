"""Events of several threads are recorded together, and nobody goes on before its own are durable."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until

from goalrun.core.events import Event, FlowTold
from goalrun.errors import EnvironmentFailure
from goalrun.flows.notes import Notes


def told(text: str) -> FlowTold:
    return FlowTold(turn=1, path="p", what="log", text=text)


class Disk:
    """Takes batches of events; the first one for as long as the gate is shut."""

    def __init__(self, *, full: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self._full = full

    def __call__(self, *events: Event) -> None:
        self.batches.append([event.text for event in events if isinstance(event, FlowTold)])
        if len(self.batches) == 1:
            self.begun.set()
            assert self.gate.wait(60)
        elif self._full:
            raise EnvironmentFailure("the disk is full")


@pytest.mark.parametrize("full", [False, True])
def test_what_comes_while_one_is_written_is_written_together_and_all_are_told_of_its_failure(*, full: bool) -> None:
    disk = Disk(full=full)
    notes = Notes(disk)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(notes, told("one"))
        assert disk.begun.wait(60)
        others = [pool.submit(notes, told(text), told(f"{text}, too")) for text in ("two", "three")]
        wait_until(lambda: len(notes._queue) == 2, "both wait")
        assert not first.done()
        disk.gate.set()
        failures = [each.exception() for each in (first, *others)]
    assert [len(batch) for batch in disk.batches] == [1, 4]
    assert sorted(disk.batches[1]) == ["three", "three, too", "two", "two, too"]
    assert disk.batches[1].index("two, too") == disk.batches[1].index("two") + 1
    assert [str(failure or "") for failure in failures] == ["", *["the disk is full" if full else ""] * 2]

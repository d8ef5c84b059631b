"""Runs ``unittest`` just as ``python -m unittest`` does, and writes down which tests ran and how they ended.

Nothing imports this: ``unittest.py`` beside it hands its text to the interpreter of the check, from Python 3.8 on.
Its arguments are where the report goes, then those of ``unittest``. It exits as ``unittest`` does; with 5 after
zero tests, which before Python 3.12 counted as success.
"""

from __future__ import annotations

import sys

# Until the standard library is imported: a file of the project must not stand in for a part of it.
FROM_HERE = sys.path[:1] == [""]
del sys.path[: int(FROM_HERE)]

import importlib.util  # noqa: E402
import os  # noqa: E402
import unittest  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

_BEFORE = set(sys.modules)

import json  # noqa: E402

for _name in set(sys.modules) - _BEFORE:
    # ``python -m unittest`` has not imported these, and the project may have modules of the same name.
    del sys.modules[_name]

if TYPE_CHECKING:
    from typing import Any

    from _typeshed import OptExcInfo

    Result = unittest.TextTestResult[Any]
else:
    Result = unittest.TextTestResult

NO_TESTS = 5
PROCESS = os.getpid()
REPORT = sys.argv[1] if len(sys.argv) > 1 else ""
RECORDED: dict[str, str] = {}
WORST = ("passed", "skipped", "failed")


def record(test: unittest.TestCase, outcome: str) -> None:
    """Note an outcome, if it is the worst so far; a subtest's belongs to its test."""
    name = getattr(test, "test_case", test).id()
    RECORDED[name] = max(RECORDED.get(name, outcome), outcome, key=WORST.index)


class Recorder(Result):
    """What unittest prints, and beside it the worst outcome of each test."""

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: D102, N802
        super().addSuccess(test)
        record(test, "passed")

    def addError(self, test: unittest.TestCase, err: OptExcInfo) -> None:  # noqa: D102, N802
        super().addError(test, err)
        record(test, "failed")

    def addFailure(self, test: unittest.TestCase, err: OptExcInfo) -> None:  # noqa: D102, N802
        super().addFailure(test, err)
        record(test, "failed")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: OptExcInfo | None) -> None:  # noqa: D102, N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            record(test, "failed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: D102, N802
        super().addSkip(test, reason)
        record(test, "skipped")

    def addExpectedFailure(self, test: unittest.TestCase, err: OptExcInfo) -> None:  # noqa: D102, N802
        super().addExpectedFailure(test, err)
        record(test, "passed")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: D102, N802
        super().addUnexpectedSuccess(test)
        record(test, "failed")


class Runner(unittest.TextTestRunner):
    """A runner that writes the report when all is over."""

    resultclass = Recorder  # type: ignore[mutable-override]
    empty = False

    def run(self, test: unittest.TestSuite | unittest.TestCase) -> unittest.TextTestResult[Any]:
        """Run the tests, then report; a fork that a test left behind must not."""
        result = super().run(test)
        Runner.empty = result.testsRun == 0 and not result.skipped
        if os.getpid() == PROCESS:
            write(result)
        return result


def write(result: unittest.TestResult) -> None:
    """Write the report in one piece, or not at all: without one, the check says so itself."""
    stopped_early = result.shouldStop and result.wasSuccessful()
    document = {"complete": not stopped_early, "tests": sorted(RECORDED.items())}
    try:
        with open(REPORT + ".part", "x", encoding="ascii") as file:  # noqa: PTH123 - as little imported as can be
            json.dump(document, file)
        os.replace(REPORT + ".part", REPORT)  # noqa: PTH105
    except OSError:
        return


def disguise() -> None:
    """Give tests the ``__main__``, ``sys.argv`` and ``sys.path`` that ``python -m unittest`` gives them."""
    spec = importlib.util.find_spec("unittest.__main__")
    if spec is not None:
        # Named so, multiprocessing does not import it again in its children.
        names = {"__file__": spec.origin, "__cached__": spec.cached, "__loader__": spec.loader}
        vars(sys.modules["__main__"]).update(names, __spec__=spec, __package__="unittest")
    sys.argv[:2] = [os.path.basename(sys.executable) + " -m unittest"]  # noqa: PTH119
    if FROM_HERE:
        sys.path.insert(0, os.getcwd())  # noqa: PTH109


def main() -> None:
    """Run everything."""
    disguise()
    try:
        unittest.main(module=None, testRunner=Runner)
    except SystemExit as end:
        if Runner.empty and not end.code:
            raise SystemExit(NO_TESTS) from None
        raise


if __name__ == "__main__":
    main()

"""JUnit XML, as pytest and others write it. Read with suspicion: the code under test may have written it."""

from xml.parsers import expat

from goalrun.adapters.reports.found import Found, Outcome, collect


class _Cases:
    """Collects the test cases as the file streams by; totals that the file claims are not looked at."""

    def __init__(self) -> None:
        self.tests: list[tuple[str, Outcome]] = []
        self.root = ""
        self._name = ""
        self._outcome: Outcome = "passed"

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.root = self.root or name
        if name == "testcase":
            where = attributes.get("classname", "")
            self._name = f"{where}::{attributes.get('name', '')}" if where else attributes.get("name", "")
            self._outcome = "passed"
        elif name in {"failure", "error"}:
            self._outcome = "failed"
        elif name == "skipped" and self._outcome == "passed":
            self._outcome = "skipped"

    def end(self, name: str) -> None:
        if name == "testcase":
            self.tests.append((self._name, self._outcome))


def read_junit(content: bytes) -> Found:
    """Read a JUnit report.

    Raises:
        ValueError: it is no JUnit report, or declares entities, which no test program does and an XML bomb needs.
    """
    cases = _Cases()
    parser = expat.ParserCreate()
    parser.StartElementHandler = cases.start
    parser.EndElementHandler = cases.end
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(content, True)  # noqa: FBT003 - expat's own signature
    except expat.ExpatError as failure:
        raise ValueError(f"no XML: {failure}") from failure
    if cases.root not in {"testsuites", "testsuite"}:
        raise ValueError(f"no JUnit report: its root is {cases.root!r}")
    return collect(cases.tests)


def _refuse(*_: object) -> None:
    raise ValueError("a report may not declare a document type")

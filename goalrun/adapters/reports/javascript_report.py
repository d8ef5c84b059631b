"""What JavaScript test programs write. Read with suspicion: the code under test may have written it."""

import os.path
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from goalrun.adapters.reports.found import Found, Outcome, collect, read_whole

NODE_REPORTER = """\
import { resolve } from "node:path";
export default async function* (source) {
  const tests = [], titles = [];
  for await (const { type, data } of source) {
    if (type === "test:start") titles[data.nesting] = data.name;
    if (type !== "test:pass" && type !== "test:fail") continue;
    const failed = type === "test:fail";
    const path = [...titles.slice(0, data.nesting), data.name];
    if (data.nesting === 0 && data.file && resolve(data.name) === data.file) {
      if (failed) tests.push([data.file, [], "failed"]);
      continue;
    }
    const why = data.details?.error?.failureType;
    if (data.details?.type === "suite" && (!failed || why === "subtestsFailed")) continue;
    const left = data.skip !== undefined || data.todo !== undefined;
    tests.push([data.file ?? "", path, left ? "skipped" : failed ? "failed" : "passed"]);
  }
  yield JSON.stringify({ tests });
}
"""
"""For node: its own JUnit and TAP do not name files. A file without a test counts only where it failed."""

MOCHA_REPORTER = """\
const { writeFileSync } = require("fs");
module.exports = function (runner, options) {
  const tests = [];
  const add = (outcome) => (test) =>
    tests.push([test.file || (test.parent && test.parent.file) || "", test.titlePath(), outcome]);
  runner.on("pass", add("passed"));
  runner.on("pending", add("skipped"));
  runner.on("fail", add("failed"));
  runner.on("fail", (test, error) => tests.shown || console.log(test.titlePath().join(" > "), error));
  runner.on("end", () => writeFileSync(__filename.slice(0, -4), JSON.stringify({ tests })));
  try {
    const { reporters } = require("module").createRequire(require.main.filename)("mocha");
    new reporters.Spec(runner, options);
    tests.shown = true;
  } catch (error) {
    console.log(`(no details: ${error})`);
  }
};
"""
"""For mocha, which has room for one reporter only: what ``spec`` prints, and a report beside it."""

_WRITTEN = 'pwd -P >"$0.start"; printf %s "$1" >"$0$2"; shift 2; exec "$@"'
_PLAIN = 'pwd -P >"$0.start"; exec "$@"'


def noting_start(words: list[str], report: Path) -> list[str]:
    """A command that first notes beside its report where it starts: reports name files by absolute path."""
    return ["sh", "-c", _PLAIN, str(report), *words]


def with_reporter(words: list[str], report: Path, reporter: str, suffix: str) -> list[str]:
    """The same, and it also writes the reporter that the command uses: ``report`` with a suffix."""
    return ["sh", "-c", _WRITTEN, str(report), reporter, suffix, *words]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Assertion(_Model):
    titles: list[str] = Field(alias="ancestorTitles")
    title: str
    status: Literal["passed", "failed", "skipped", "pending", "todo", "disabled", "focused"]


class _File(_Model):
    name: str = Field(min_length=1)
    status: str
    assertions: list[_Assertion] = Field(alias="assertionResults")


class _Jest(_Model):
    """As jest writes it, and vitest after its example; the totals that the file claims are not looked at."""

    files: list[_File] = Field(alias="testResults")
    interrupted: bool = Field(alias="wasInterrupted", default=False)


class _Own(_Model):
    """As the reporters above write it: file, titles from the outermost group on, outcome."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    tests: list[tuple[str, list[str], Outcome]]


def read_report(report: Path) -> Found | None:
    """Read what one of the reporters above wrote, or jest, or vitest; see ``found.Runner.read``."""
    content, start = read_whole(report), _start_of(report)
    if not content or start is None:
        return None
    parsed = TypeAdapter[_Own | _Jest](_Own | _Jest).validate_json(content)
    if isinstance(parsed, _Own):
        return collect((_id(file, titles, start), outcome) for file, titles, outcome in parsed.tests)
    return None if parsed.interrupted else collect(_jest_tests(parsed, start))


def _jest_tests(parsed: _Jest, start: str) -> Iterator[tuple[str, Outcome]]:
    for file in parsed.files:
        outcomes = [_outcome(assertion.status) for assertion in file.assertions]
        for assertion, outcome in zip(file.assertions, outcomes, strict=True):
            yield _id(file.name, [*assertion.titles, assertion.title], start), outcome
        # It did not load, or failed outside of its tests.
        if file.status not in {"passed", "skipped", "pending", "focused"} and "failed" not in outcomes:
            yield _id(file.name, [], start), "failed"


def _outcome(status: str) -> Outcome:
    return "passed" if status in {"passed", "focused"} else "failed" if status == "failed" else "skipped"


def _id(file: str, titles: list[str], start: str) -> str:
    """File and titles; of groups without a name, such as the outermost of vitest 1, nothing is said."""
    where = os.path.relpath(file, start) if file.startswith("/") else file
    return f"{where}::{' > '.join([*filter(None, titles[:-1]), titles[-1]])}" if titles else where


def _start_of(report: Path) -> str | None:
    """Where the command started, as it noted itself."""
    content = read_whole(report.with_name(f"{report.name}.start"))
    start = content.decode("utf-8").removesuffix("\n") if content is not None else ""
    return start if start.startswith("/") else None

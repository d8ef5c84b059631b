"""cargo test: libtest's text, as stable cargo has no other report; every line that means something must be in place."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters.reports.found import Found, Outcome, collect, read_whole, turned, unequal

CUT = re.compile(r"\[\.\.\. \d+ bytes left out \.\.\.\]")
"""What stands in a captured output for its middle where it was too long: then nothing is known of the rest either."""
INTEGRATION = "\n\n#[test]\nfn {test}() {{\n    assert_eq!({left}, {right});\n}}\n"
UNIT = """

#[cfg(test)]
mod {module} {{
    #[test]
    fn {test}() {{
        assert_eq!({left}, {right});
    }}
}}
"""
_BINARY = re.compile(r" {5}Running (unittests )?(\S+) \((\S+?)(?:-[0-9a-f]{16})?\)")
_DOCUMENTATION = re.compile(r" {3}Doc-tests (\S+)")
_RUNNING = re.compile(r"running (\d+) tests?")
_TEST = re.compile(r"test (.+?) \.\.\. (ok|FAILED|ignored(?:, .*)?)")
_LIKE_A_TEST = re.compile(r"test .* \.\.\. ")
_RESULT = re.compile(
    r"test result: (ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored; 0 measured; \d+ filtered .*"
)
_LINE = re.compile(r" \(line (\d+)\)")
_QUIET_OR_VERBOSE = re.compile(r"-r*[qvh][qvhr]*")
_NOT_OF_CARGO = {"--quiet", "--verbose", "--help", "--no-run", "--message-format", "--list", "--build-plan"}
_NOT_OF_LIBTEST = {
    *("--nocapture", "--no-capture", "--show-output", "--format", "--quiet", "-q", "--list", "--help", "-h"),
    *("--logfile", "--color", "--bench", "--report-time", "-Z"),
}


class Cargo:
    """``cargo test …`` or ``cargo +toolchain test …``."""

    name = "cargo"

    def prepare(self, words: Sequence[str], start: Path, report: Path) -> list[str] | None:
        """Ask for the plain text of all binaries, where nothing in the command changes it; see ``found.Runner``."""
        del start, report
        place = 2 if words[1:2] and words[1].startswith("+") else 1
        if Path(words[0]).name != "cargo" or words[place : place + 1] not in (["test"], ["t"]):
            return None
        rest = list(words[place + 1 :])
        split = rest.index("--") if "--" in rest else len(rest)
        own, libtest = rest[:split], {word.partition("=")[0] for word in rest[split + 1 :]}
        names = {word.partition("=")[0] for word in own}
        if names & _NOT_OF_CARGO or libtest & _NOT_OF_LIBTEST or any(map(_QUIET_OR_VERBOSE.fullmatch, own)):
            return None
        if "--color" in names:
            return None
        # Without it, a failure hides the tests of all later binaries. The exit status is the same.
        every = [] if "--no-fail-fast" in names else ["--no-fail-fast"]
        return [*words[: place + 1], *every, "--color=never", *rest]

    def read(self, report: Path, output: Path) -> Found | None:
        """See ``found.Runner``."""
        del report
        content = read_whole(output)
        if content is None:
            return None
        transcript = _Transcript()
        for line in content.decode("utf-8", "replace").split("\n"):
            transcript.take(line.removesuffix("\r"))
        return collect(_identified(transcript.tests)) if transcript.complete else None

    def plant(self, start: Path, found: Found, token: str) -> str | None:
        """A failing test in a file of ``tests`` that ran, else in the library or program; see ``found.Runner``.

        Named after a test that ran, so that a command which selects some tests by name selects this one too.
        """
        tests = sorted(test for test in found.outcomes if re.fullmatch(r"[^#]+?\.rs(::\w+)+( - .*)?", test))
        for test in sorted(turned(tests, token), key=lambda test: (not test.startswith("tests/"), test.count("::"))):
            binary, *modules, name = test.partition(" - ")[0].split("::")
            path = _source(binary, start)
            if path is None:
                continue
            unit = not binary.startswith("tests/")
            module = f"{modules[0] if modules else 'tests'}_{token}"
            name = name if unit else f"{name}_{token}"
            with path.open("a", encoding="utf-8") as file:
                file.write((UNIT if unit else INTEGRATION).format(module=module, test=name, **unequal(token)))
            return f"{binary}::{module}::{name}" if unit else f"{binary}::{name}"
        return None


class _Test(NamedTuple):
    binary: str
    name: str
    outcome: Outcome


class _Transcript:
    """One pass over the output. A binary is announced, says how many tests it has, lists them, and sums them up."""

    def __init__(self) -> None:
        self.tests: list[_Test] = []
        self._binaries: dict[str, int] = {}
        self._binary = ""
        self._open = False
        self._summed_up = True
        self._expected = 0
        self._block: list[_Test] = []

    @property
    def complete(self) -> bool:
        """Whether a binary ran, and all that did came to their end."""
        return bool(self._binaries) and self._summed_up and not self._open

    def take(self, line: str) -> None:
        """Take the next line.

        Raises:
            ValueError: it is out of place, so it is not libtest that wrote all of this.
        """
        if match := _BINARY.fullmatch(line) or _DOCUMENTATION.fullmatch(line):
            self._announce(match)
        elif match := _RUNNING.fullmatch(line):
            self._begin(int(match[1]))
        elif match := _RESULT.fullmatch(line):
            self._sum_up(match)
        elif match := _TEST.fullmatch(line):
            self._list(match[1], match[2])
        elif (
            CUT.fullmatch(line) or line.startswith("test result: ") or (_LIKE_A_TEST.match(line) and not self._listing)
        ):
            raise ValueError(f"out of place: {line[:80]!r}")

    @property
    def _listing(self) -> bool:
        return self._open and len(self._block) < self._expected

    def _announce(self, match: re.Match[str]) -> None:
        if self._open or not self._summed_up:
            raise ValueError("a binary is announced before the last one came to its end")
        if match.re is _DOCUMENTATION:
            label = f"{match[1]} documentation"
        else:
            label = f"{Path(match[3]).name} {match[2]}" if match[1] else match[2]
        self._binaries[label] = number = self._binaries.get(label, 0) + 1
        # Members of a workspace may have the same; cargo runs them in the same order each time.
        self._binary = label if number == 1 else f"{label}#{number}"
        self._summed_up = False

    def _begin(self, expected: int) -> None:
        # Tests in documentation come in two parts, with two sums.
        again = self._summed_up and " documentation" in self._binary
        if self._open or not self._binary or (self._summed_up and not again):
            raise ValueError("tests begin out of place")
        self._open, self._summed_up, self._expected, self._block = True, False, expected, []

    def _list(self, name: str, word: str) -> None:
        if not self._listing:
            raise ValueError("a test is listed out of place")
        outcome: Outcome = {"ok": "passed", "FAILED": "failed"}.get(word, "skipped")  # type: ignore[assignment]
        self._block.append(_Test(self._binary, name, outcome))

    def _sum_up(self, match: re.Match[str]) -> None:
        outcomes = [test.outcome for test in self._block]
        counts = [outcomes.count("passed"), outcomes.count("failed"), outcomes.count("skipped")]
        agree = counts == [int(match[group]) for group in (2, 3, 4)] and (match[1] == "ok") == (not counts[1])
        if not self._open or len(self._block) != self._expected or not agree:
            raise ValueError("a sum does not agree with the tests before it")
        self._open, self._summed_up = False, True
        self.tests.extend(self._block)


def _identified(tests: Sequence[_Test]) -> Iterator[tuple[str, Outcome]]:
    """Ids. Line numbers, which any edit shifts, only tell the examples of one item apart: the first, the second."""
    numbers: dict[str, int] = {}
    lines = [(int(match[1]) if (match := _LINE.search(test.name)) else 0, test) for test in tests]
    for line, test in sorted(lines, key=lambda pair: pair[0]):
        name = f"{test.binary}::{_LINE.sub('', test.name)}"
        numbers[name] = number = numbers.get(name, 0) + 1
        yield name if not line or number == 1 else f"{name}#{number}", test.outcome


def _source(binary: str, start: Path) -> Path | None:
    """The one file below ``start`` that a binary was made from; ``NAME src/lib.rs`` is told apart by its package."""
    crate, _, relative = binary.rpartition(" ")
    manifests = [path for depth in ("", "*/", "*/*/", "*/*/*/") for path in start.glob(f"{depth}Cargo.toml")]
    files = {manifest: manifest.parent / relative for manifest in manifests if "target" not in manifest.parts}
    fits = {
        manifest: path
        for manifest, path in files.items()
        if path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(start.resolve())
    }
    if len(fits) > 1 and crate:
        fits = {manifest: path for manifest, path in fits.items() if _package(manifest) == crate}
    return next(iter(fits.values())) if len(fits) == 1 else None


def _package(manifest: Path) -> str:
    try:
        name = tomllib.loads(manifest.read_text(encoding="utf-8"))["package"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return str(name).replace("-", "_")

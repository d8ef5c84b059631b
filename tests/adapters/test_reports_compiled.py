"""Reports of ``cargo test``, from the real one, and of ``go test``, from streams in the form that it writes.

Nothing below runs go, which test_reports_go.py does: its streams have the events of cmd/test2json in the order in which
go 1.20 and 1.24 write them.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from support import write

from goalrun.adapters.reports import Found, Report, prepare
from goalrun.adapters.reports.cargo import Cargo
from goalrun.adapters.reports.found import MAX_REPORT_BYTES
from goalrun.adapters.reports.golang import Go

TOKEN = "k3x9q"  # noqa: S105 - a part of a name
RUSTUP = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))


def cargo_works() -> bool:
    """Whether there is a cargo that runs: rustup's stand-in needs a toolchain in the user's home."""
    if shutil.which("cargo") is None:
        return False
    return subprocess.run(["cargo", "--version"], capture_output=True, check=False).returncode == 0


needs_cargo = pytest.mark.skipif(not cargo_works(), reason="there is no cargo that works")
MANIFEST = '[package]\nname = "my-shop"\nversion = "0.1.0"\nedition = "2024"\n\n[profile.test]\ndebug = false\n'
LIBRARY = """//! A shop.

/// Adds.
///
/// ```
/// assert_eq!(my_shop::add(1, 2), 3);
/// ```
///
/// ```compile_fail
/// my_shop::add();
/// ```
///
/// ```
/// assert_eq!(my_shop::add(2, 2), 4);
/// ```
pub fn add(a: i32, b: i32) -> i32 {
    a + b
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    #[test]
    fn adds() {
        println!("test tests::captured ... ok");
        let text = std::env::var("RAW").unwrap_or_default();
        std::io::stdout().write_all(text.as_bytes()).unwrap();
        if std::env::var("EXIT").is_ok() {
            std::process::exit(0);
        }
        assert_eq!(super::add(1, 2), 3);
    }

    #[test]
    #[ignore = "takes, long"]
    fn slow() {}

    #[test]
    #[should_panic]
    fn panics() {
        panic!("as it should")
    }

    #[test]
    fn fails() {
        assert!(std::env::var("FAIL").is_err());
    }
}
"""
PROGRAM = "fn main() {}\n\n#[test]\nfn starts() {}\n"
INTEGRATION = "#[test]\nfn sells() {}\n\nmod deep {\n    #[test]\n    fn buys() {}\n}"
IDS = {
    "my_shop src/lib.rs::tests::adds": "passed",
    "my_shop src/lib.rs::tests::fails": "passed",
    "my_shop src/lib.rs::tests::panics - should panic": "passed",
    "my_shop src/lib.rs::tests::slow": "skipped",
    "my_shop src/main.rs::starts": "passed",
    "my_shop documentation::src/lib.rs - add": "passed",
    "my_shop documentation::src/lib.rs - add#2": "passed",
    "my_shop documentation::src/lib.rs - add - compile fail": "passed",
    "tests/it.rs::deep::buys": "passed",
    "tests/it.rs::sells": "passed",
}


def cargo(tree: Path, command: str = "cargo test --offline", **variables: str) -> tuple[int, Found | None, str]:
    """Exit status, report and output. Builds go to a folder of their own, which all runs share."""
    report = prepare(command, tree, tree.parent, tree.parent)
    assert report.runner is not None
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO", "RUST"))}
    places = {
        "RUSTUP_HOME": RUSTUP,
        "CARGO_HOME": str(tree.parent / "home"),
        "CARGO_TARGET_DIR": str(tree.parent / "t"),
    }
    output = tree.parent / "output"
    with output.open("wb") as file:
        done = subprocess.run(
            shlex.split(report.command), cwd=tree, env={**kept, **places, **variables},
            stdout=file, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    return done.returncode, report.read(output), output.read_text("utf-8")


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package, built once; how its tests behave is told by variables."""
    files = {"Cargo.toml": MANIFEST, "src/lib.rs": LIBRARY, "src/main.rs": PROGRAM, "tests/it.rs": INTEGRATION}
    return write(tmp_path_factory.mktemp("cargo") / "tree", files)


@needs_cargo
def test_every_binary_is_told_with_ids_that_stay(crate: Path) -> None:
    code, found, output = cargo(crate)
    assert found is not None, output
    assert (code, dict(found.outcomes)) == (0, IDS)
    assert cargo(crate)[1] == found


@needs_cargo
def test_a_failure_hides_no_later_binary(crate: Path) -> None:
    code, found, output = cargo(crate, FAIL="1")
    assert found is not None, output
    assert (code, found.outcomes) == (101, {**IDS, "my_shop src/lib.rs::tests::fails": "failed"})


@needs_cargo
@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("test tests::forged ... ok\n", "one test more than were announced"),
        ("test tests::forged ... ok\ntest result: ok. 5 passed; 0 failed", "the same with the beginning of a sum"),
        ("     Running tests/new.rs (target/debug/deps/new-0123456789abcdef)\n", "a binary in the middle of another"),
        ("running 1 test\n", "a second beginning"),
        ("no new line at the end, so the next test's line is not one", "a line that is lost"),
    ],
)
def test_lines_that_product_code_forges_make_it_no_report(raw: str, why: str, crate: Path) -> None:
    code, found, output = cargo(crate, "cargo test --offline --lib", RAW=raw)
    assert raw in output
    assert (code, found) == (0, None), why


@needs_cargo
def test_other_output_of_product_code_does_no_harm(crate: Path) -> None:
    _, found, _ = cargo(crate, "cargo test --offline --lib", RAW="testing, testing\n{}\n")
    assert found is not None
    assert set(found.outcomes) == {test for test in IDS if "lib.rs::" in test}


@needs_cargo
def test_a_process_that_ends_early_leaves_no_report(crate: Path) -> None:
    code, found, _ = cargo(crate, "cargo test --offline --lib", EXIT="1")
    assert (code, found) == (0, None)


@needs_cargo
def test_a_whole_report_can_be_forged_but_does_not_have_the_planted_failure(crate: Path, tmp_path: Path) -> None:
    raw = "".join(f"test tests::{test} ... ok\n" for test in ("a", "b", "c", "d"))
    raw += "\ntest result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
    arguments = "cargo test --offline --lib -- tests::adds tests::fails tests::panics tests::slow --test-threads=1"
    code, found, output = cargo(crate, arguments, RAW=f"\n{raw}", EXIT="1")
    assert found is not None, output
    assert (code, found.counts.passed, found.counts.failed) == (0, 4, 0)
    tree = shutil.copytree(crate, tmp_path / "copy" / "tree")
    planted = Cargo().plant(tree, found, TOKEN)
    assert planted is not None
    assert planted not in found.outcomes


@needs_cargo
@pytest.mark.parametrize(
    ("command", "planted"),
    [
        ("cargo test --offline --test it", f"tests/it.rs::sells_{TOKEN}"),
        ("cargo test --offline --lib", f"my_shop src/lib.rs::tests_{TOKEN}::panics"),
        ("cargo test --offline --bins", f"my_shop src/main.rs::tests_{TOKEN}::starts"),
    ],
)
def test_a_planted_failure_is_reported_and_changes_no_other(command: str, planted: str, crate: Path) -> None:
    before = cargo(crate, command)[1]
    assert before is not None
    originals = {path: path.read_bytes() for path in crate.rglob("*.rs")}
    try:
        assert Cargo().plant(crate, before, TOKEN) == planted
        code, after, output = cargo(crate, command)
    finally:
        for path, content in originals.items():
            path.write_bytes(content)
    assert after is not None, output
    assert (code, after.outcomes) == (101, {**before.outcomes, planted: "failed"})


def binary(label: str, *lines: str, result: str) -> str:
    listed = "".join(f"{line}\n" for line in lines)
    number = sum(line.startswith("test ") for line in lines)
    total = f"running {number} test{'' if number == 1 else 's'}"
    return f"{label}\n\n{total}\n{listed}\ntest result: {result}; 0 measured; 0 filtered out; finished in 0.00s\n\n"


LABEL = "     Running unittests src/lib.rs (target/debug/deps/a-0123456789abcdef)"
OTHER = "     Running tests/it.rs (target/debug/deps/it-0123456789abcdef)"
ONE = binary(LABEL, "test a ... ok", result="ok. 1 passed; 0 failed; 0 ignored")


def read_cargo(text: str, folder: Path) -> Found | None:
    (folder / "output").write_bytes(text.encode("utf-8", "surrogatepass"))
    return Report("", folder / "report", Cargo()).read(folder / "output")


def test_members_of_a_workspace_with_the_same_names_are_told_apart(tmp_path: Path) -> None:
    member = binary(
        OTHER, "test a ... ok", "test b ... ignored, slow, very", result="ok. 1 passed; 0 failed; 1 ignored"
    )
    found = read_cargo(f"   Compiling a v0.1.0\n{ONE}{member}{member}", tmp_path)
    assert found is not None
    assert list(found.outcomes) == [
        "a src/lib.rs::a", "tests/it.rs::a", "tests/it.rs::b", "tests/it.rs#2::a", "tests/it.rs#2::b"
    ]  # fmt: skip
    assert Cargo().plant(write(tmp_path / "x", {"Cargo.toml": "", "b/Cargo.toml": ""}), found, TOKEN) is None


def test_a_failing_binary_is_read_whatever_harmless_its_tests_printed(tmp_path: Path) -> None:
    shown = "failures:\n\n---- b stdout ----\nwhatever\n\n\nfailures:\n    b\n"
    lines = ("test b ... FAILED", "test c has been running for over 60 seconds", "test c ... ok")
    text = f"{LABEL}\n\nrunning 2 tests\n" + "\n".join(lines) + f"\n\n{shown}\n"
    text += "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s\n"
    found = read_cargo(text + ONE.replace("deps/a-", "deps/b-"), tmp_path)
    assert found is not None
    assert found.failing == ("a src/lib.rs::b",)
    forged = text.replace("whatever", "test b ... ok")
    assert read_cargo(forged, tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00\ud800\x1b[31m",
        "error: could not compile",
        ONE.replace(LABEL, ""),
        ONE[: ONE.index("test result")],
        ONE + LABEL,
        ONE + OTHER + "\n\nrunning 1 test\n",
        ONE.replace("1 passed", "2 passed"),
        ONE.replace("0 failed", "1 failed"),
        ONE.replace("result: ok", "result: FAILED"),
        ONE.replace("running 1 test", "running 2 tests"),
        ONE.replace("test a ... ok", "test a ... ok\ntest a ... ok"),
        ONE.replace("test a ... ok", "test a ... bench:  1 ns/iter"),
        ONE + "test b ... ok\n",
        "test b ... ok\n" + ONE,
        ONE + "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        ONE + "running 1 test\n",
        ONE + "[... 77 bytes left out ...]\n",
        ONE.replace("1", "1" * 5000),
    ],
)
def test_output_in_which_something_is_missing_or_out_of_place_is_no_report(text: str, tmp_path: Path) -> None:
    assert read_cargo(text, tmp_path) is None


@pytest.mark.parametrize("runner", [Cargo(), Go()])
def test_an_output_that_is_huge_or_missing_is_no_report(runner: Cargo | Go, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_REPORT_BYTES + 1)
    for name in ("huge", "missing"):
        assert runner.read(tmp_path / "report", tmp_path / name) is None


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("cargo test", "cargo test --no-fail-fast --color=never"),
        ("cargo +nightly t --lib", "cargo +nightly t --no-fail-fast --color=never --lib"),
        ("A=1 cargo test --no-fail-fast", "A=1 cargo test --color=never --no-fail-fast"),
        ("cargo test a -- --skip b", "cargo test --no-fail-fast --color=never a -- --skip b"),
        ("go test ./...", "go test -json ./..."),
        ("go test -v -run A ./...", "go test -json -v -run A ./..."),
        ("go test --json ./...", "go test --json ./..."),
        ("go test . -args -json", "go test -json . -args -json"),
    ],
)
def test_a_plain_run_is_asked_for_a_report(command: str, asked: str, tmp_path: Path) -> None:
    report = prepare(command, tmp_path, tmp_path, tmp_path)
    assert report.runner is not None
    assert report.command == asked


@pytest.mark.parametrize(
    "command",
    ["cargo", "cargo build", "cargo nextest run", "cargo test -q", "cargo test --quiet", "cargo test -v",
     "cargo test -vv",
     "cargo test --no-run", "cargo test --message-format=json", "cargo test --color always", "cargo test --help",
     "cargo test -- --nocapture", "cargo test -- --no-capture", "cargo test -- --show-output", "cargo test -- -q",
     "cargo test -- --format=pretty", "cargo test -- --format terse", "cargo test -- -Z unstable-options",
     "cargo test -- --list", "cargo test; true", "+nightly test", "go", "go vet", "go test -c", "go test -list A",
     "go test -json=false", "go test -fuzz=Fuzz", "go test -exec true", "go test -n ./...", "gotestsum ./..."],
)  # fmt: skip
def test_every_other_command_is_left_as_it_is(command: str, tmp_path: Path) -> None:
    report = prepare(command, tmp_path, tmp_path, tmp_path)
    assert (report.command, report.runner) == (command, None)


PACKAGE = "example.com/shop/cart"


def event(action: str, test: str = "", package: str = PACKAGE, **more: object) -> str:
    named = {"Test": test} if test else {}
    return json.dumps({"Time": "2026-01-01T00:00:00Z", "Action": action, "Package": package, **named, **more})


def ran(test: str, action: str = "pass", package: str = PACKAGE) -> list[str]:
    said = event("output", test, package, Output=f"=== RUN   {test}\n")
    return [event("run", test, package), said, event(action, test, package, Elapsed=0)]


def read_go(lines: Iterable[str], folder: Path) -> Found | None:
    (folder / "output").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return Report("", folder / "report", Go()).read(folder / "output")


PASSING = [event("start"), *ran("TestSell"), event("output", Output="PASS\n"), event("pass", Elapsed=0.1)]


def test_events_of_several_packages_are_read_in_any_order(tmp_path: Path) -> None:
    empty, broken = "example.com/shop", "example.com/shop/broken"
    stream = [
        "go: downloading example.com/dependency v1.0.0",
        event("start", package=empty),
        event("start"),
        event("run", "TestBuy"),
        event("run", "TestBuy/two_at_once"),
        event("pause", "TestBuy/two_at_once"),
        event("output", package=empty, Output=f"?   \t{empty}\t[no test files]\n"),
        event("skip", package=empty, Elapsed=0),
        event("cont", "TestBuy/two_at_once"),
        event("attr", "TestBuy/two_at_once", Key="a", Value="b"),
        event("fail", "TestBuy/two_at_once", Elapsed=0),
        event("fail", "TestBuy", Elapsed=0),
        *ran("TestSell"),
        *ran("TestLater", "skip"),
        *ran("BenchmarkFast", "bench"),
        event("run", "BenchmarkQuiet"),
        event("fail"),
        json.dumps({"ImportPath": broken, "Action": "build-output", "Output": "# broken\n"}),
        json.dumps({"ImportPath": broken, "Action": "build-fail"}),
        event("start", package=broken),
        event("fail", package=broken, FailedBuild=broken),
    ]
    found = read_go(stream, tmp_path)
    assert found is not None
    assert found.outcomes == {
        f"{PACKAGE}::TestBuy/two_at_once": "failed",
        f"{PACKAGE}::TestBuy": "failed",
        f"{PACKAGE}::TestSell": "passed",
        f"{PACKAGE}::TestLater": "skipped",
        f"{PACKAGE}::BenchmarkFast": "passed",
        broken: "failed",
    }


def test_of_several_runs_of_one_test_the_worst_counts(tmp_path: Path) -> None:
    found = read_go([event("start"), *ran("TestA", "fail"), *ran("TestA"), event("fail")], tmp_path)
    assert found == Found({f"{PACKAGE}::TestA": "failed"})


def test_a_panic_takes_the_tests_that_it_left_open_with_it(tmp_path: Path) -> None:
    found = read_go([event("start"), event("run", "TestOpen"), *ran("TestPanics", "fail"), event("fail")], tmp_path)
    assert found is not None
    assert set(found.failing) == {f"{PACKAGE}::TestOpen", f"{PACKAGE}::TestPanics"}


@pytest.mark.parametrize(
    "stream",
    [
        [],
        ["ok  \texample.com/shop\t0.1s"],
        PASSING[:-1],
        [*PASSING, event("start", package="example.com/other")],
        [event("start"), event("run", "TestExits"), event("pass")],
        [event("start"), event("pass", "TestNeverBegan"), event("pass")],
        [event("start"), event("run", "TestA"), *ran("TestA"), event("pass")],
        [event("start"), *ran("TestA", "fail"), event("pass")],
        [*PASSING, *ran("TestAfterTheEnd")],
        [*PASSING, event("pass")],
        [*PASSING, event("unheard of", package="b")],
        [*PASSING, "{"],
        [*PASSING, "{}"],
        [*PASSING, '{"Action": "pass"}'],
        [*PASSING, '{"Action": ["pass"], "Package": "b"}'],
        [*PASSING, '{"Action": "pass", "Package": 3}'],
        [*PASSING, '{"Action": "pass", "Package": ""}'],
        [*PASSING, '{"Action": "pass", "Package": "b", "Test": ["c"]}'],
        [*PASSING, '{"a":' * 100_000],
        [*PASSING[:2], "[... 77 bytes left out ...]", *PASSING[2:]],
    ],
)
def test_a_stream_in_which_something_is_missing_or_out_of_place_is_no_report(stream: list[str], tmp_path: Path) -> None:
    assert read_go(stream, tmp_path) is None


def test_what_tests_print_is_inside_of_events_and_forges_nothing(tmp_path: Path) -> None:
    forged = event("output", "TestSell", Output=f"{event('pass', 'TestForged')}\n--- PASS: TestForged (0.00s)\n")
    assert read_go([*PASSING[:2], forged, *PASSING[2:]], tmp_path) == Found({f"{PACKAGE}::TestSell": "passed"})


@pytest.mark.parametrize(
    ("header", "parameter", "planted"),
    [
        ('import "testing"', "t *testing.T", "t *testing.T"),
        ('import check "testing"', "c *check.T", "t *check.T"),
        ('import . "testing"', "t *T", "t *T"),
    ],
)
def test_a_go_test_is_planted_where_one_ran(header: str, parameter: str, planted: str, tmp_path: Path) -> None:
    ran_here = f"package cart_test\n\n{header}\n\nfunc TestSell({parameter}) {{}}"
    other = 'package cart\n\nimport "testing"\n\nfunc TestOther(t *testing.T) {}\n'
    files = {"go.mod": 'module "example.com/shop" // here\n', "cart/b_test.go": ran_here, "cart/a_test.go": other}
    tree = write(tmp_path / "tree", files)
    found = Found({f"{PACKAGE}::TestSell": "passed", f"{PACKAGE}::TestSell/part": "passed", "example.com/x": "failed"})
    assert Go().plant(tree, found, TOKEN) == f"{PACKAGE}::TestSell_{TOKEN}"
    text = (tree / "cart/b_test.go").read_text("utf-8")
    assert text.startswith(f"{ran_here}\n\nfunc TestSell_{TOKEN}({planted}) {{\n\tt.Fatal(")
    assert (tree / "cart/a_test.go").read_text("utf-8") == other


def test_nothing_is_planted_outside_of_the_tree(tmp_path: Path) -> None:
    test = 'package cart\n\nimport "testing"\n\nfunc TestSell(t *testing.T) {}\n'
    top = write(tmp_path / "top", {"go.mod": "module example.com/shop\n", "cart/a_test.go": test, "sub/a.go": ""})
    found = Found({f"{PACKAGE}::TestSell": "passed"})
    assert Go().plant(top / "sub", found, TOKEN) is None
    (top / "cart/a_test.go").rename(tmp_path / "a_test.go")
    (top / "cart/a_test.go").symlink_to(tmp_path / "a_test.go")
    assert Go().plant(top, found, TOKEN) is None
    assert Go().plant(top, Found({}), TOKEN) is None
    outside = write(tmp_path / "crate", {"Cargo.toml": "", "tests/it.rs": "", "sub/Cargo.toml": ""})
    (outside / "sub/tests").symlink_to(outside / "tests")
    assert Cargo().plant(outside / "sub", Found({"tests/it.rs::a": "passed"}), TOKEN) is None
    assert (tmp_path / "a_test.go").read_text("utf-8") == test

"""Reports of ``go test``, from the real one, without network."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support import write

from goalrun.adapters.reports import Found, prepare
from goalrun.adapters.reports.golang import Go

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="there is no go")

TOKEN = "k3x9q"  # noqa: S105 - a part of a name
CART = """package cart

import (
	"fmt"
	"os"
	"testing"
)

func TestOneOfTwo(t *testing.T) { t.Parallel() }

func TestSell(t *testing.T) {
	fmt.Print(os.Getenv("RAW"))
}

func TestBuy(t *testing.T) {
	switch os.Getenv("BUY") {
	case "fail":
		t.Error("no")
	case "panic":
		panic("no")
	case "exit":
		os.Exit(0)
	}
}

func TestLater(t *testing.T) {
	t.Skip("later")
}

func TestParts(t *testing.T) {
	for _, name := range []string{"two words", "c/d", "a::b", "same", "same", ""} {
		t.Run(name, func(t *testing.T) { t.Parallel() })
	}
}

func TestTwoOfTwo(t *testing.T) { t.Parallel() }

func ExampleSell() {
	fmt.Println("sold")
	// Output: sold
}
"""
TILL = """package till_test

import (
	"fmt"
	"os"
	check "testing"
)

func TestMain(m *check.M) {
	if raw, found := os.LookupEnv("FORGED"); found {
		fmt.Print(raw)
		os.Exit(0)
	}
	if code := m.Run(); code != 0 {
		os.Exit(code)
	}
	if os.Getenv("LEAK") != "" {
		os.Exit(1)
	}
}

func TestOpens(c *check.T) {}
"""
FILES = {
    "go.mod": "module example.com/shop\n\ngo 1.19\n",
    "shop.go": "package shop\n",
    "cart/cart_test.go": CART,
    "till/till_test.go": TILL,
}
CART_IDS = {
    **{f"example.com/shop/cart::Test{name}": "passed" for name in ("Sell", "Buy", "Parts", "OneOfTwo", "TwoOfTwo")},
    **{
        f"example.com/shop/cart::TestParts/{name}": "passed"
        for name in ("two_words", "c/d", "a::b", "same", "same#01", "#00")
    },
    "example.com/shop/cart::TestLater": "skipped",
    "example.com/shop/cart::ExampleSell": "passed",
}
IDS = {**CART_IDS, "example.com/shop/till::TestOpens": "passed"}


def go(tree: Path, command: str = "go test ./...", **variables: str) -> tuple[int, Found | None, str]:
    """Exit status, report and output."""
    report = prepare(command, tree, tree.parent, tree.parent)
    assert report.runner is not None
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GO")}
    settings = {"GOENV": "off", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    places = {"GOCACHE": str(tree.parent / "cache"), "GOPATH": str(tree.parent / "path")}
    output = tree.parent / "output"
    with output.open("wb") as file:
        done = subprocess.run(
            shlex.split(report.command), cwd=tree, env={**kept, **settings, **places, **variables},
            stdout=file, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    return done.returncode, report.read(output), output.read_text("utf-8")


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module goes, beside what go has built."""
    return tmp_path_factory.mktemp("go")


@pytest.fixture
def module(builds: Path) -> Path:
    """A module as written, in the same place for each test so that go builds it once; variables tell how it behaves."""
    shutil.rmtree(builds / "tree", ignore_errors=True)
    return write(builds / "tree", FILES)


def test_every_package_is_told_with_ids_that_stay(module: Path) -> None:
    code, found, output = go(module)
    assert found is not None, output
    assert (code, found.outcomes) == (0, IDS)
    assert go(module)[1] == found, "from go's cache"
    assert go(module, "go test -count=1 -shuffle=7 -v -cover ./...")[1] == found, "in another order"


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ("-run Opens ./...", {"example.com/shop/till::TestOpens"}),
        ("-count=2 ./till", {"example.com/shop/till::TestOpens"}),
        (
            "-run TestParts/same ./cart",
            {f"example.com/shop/cart::TestParts{part}" for part in ("", "/same", "/same#01")},
        ),
        ("-run NoSuch ./...", set()),
    ],
)
def test_only_what_the_command_selects_is_told(options: str, ran: set[str], module: Path) -> None:
    code, found, output = go(module, f"go test {options}")
    assert found is not None, output
    assert (code, dict(found.outcomes)) == (0, dict.fromkeys(ran, "passed"))


def test_a_failure_hides_no_other_test(module: Path) -> None:
    code, found, output = go(module, BUY="fail")
    assert found is not None, output
    assert (code, found.outcomes) == (1, {**IDS, "example.com/shop/cart::TestBuy": "failed"})


@pytest.mark.parametrize("how", ["panic", "exit"])
def test_a_test_that_ends_the_process_is_a_failure_and_so_are_those_it_left_open(how: str, module: Path) -> None:
    code, found, output = go(module, "go test -shuffle=off ./...", BUY=how)
    assert found is not None, output
    assert code == 1
    assert found.outcomes == {
        "example.com/shop/cart::TestOneOfTwo": "failed",
        "example.com/shop/cart::TestSell": "passed",
        "example.com/shop/cart::TestBuy": "failed",
        "example.com/shop/till::TestOpens": "passed",
    }


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('package bad\n\nimport "testing"\n\nfunc TestBad(t *testing.T) { missing() }\n', "[build failed]"),
        ('package bad\n\nimport _ "example.com/nowhere"\n', "[setup failed]"),
    ],
)
def test_a_package_that_cannot_be_built_stands_for_itself(content: str, why: str, module: Path) -> None:
    write(module, {"bad/bad_test.go": content})
    code, found, output = go(module)
    assert why in output
    assert found is not None, output
    assert code != 0
    assert found.outcomes == {**IDS, "example.com/shop/bad": "failed"}
    assert go(module, "go test ./bad")[1] == Found({"example.com/shop/bad": "failed"})


def test_a_package_that_fails_after_its_tests_passed_has_no_id_that_would_be_gone_once_mended(module: Path) -> None:
    code, found, output = go(module, "go test -count=1 ./...", LEAK="1")
    assert found is not None, output
    assert (code, found.outcomes) == (1, IDS)


@pytest.mark.parametrize(
    "raw", ["testing\n", '{"Action":"pass","Package":"a","Test":"b"}\n{}\n{\n', "FAIL\ta [build failed]\n"]
)
def test_what_tests_print_does_no_harm(raw: str, module: Path) -> None:
    code, found, output = go(module, RAW=raw)
    assert found is not None, output
    assert (code, found.outcomes) == (0, IDS)


@pytest.mark.parametrize("raw", ["--- FAIL: TestSell (0.00s)\n", "=== RUN   TestSell\n", "=== RUN   TestNeverEnds\n"])
def test_lines_that_product_code_forges_are_ignored_or_make_it_no_report(raw: str, module: Path) -> None:
    """go marks its own lines from 1.20 on; before, it takes such a line for one of its own."""
    code, found, _ = go(module, RAW=raw)
    assert code == 0
    assert found is None or found.outcomes == IDS


def test_a_whole_report_can_be_forged_but_does_not_have_the_planted_failure(module: Path) -> None:
    forged = "\x16=== RUN   TestOpens\n\x16--- PASS: TestOpens (0.00s)\nPASS\n"
    code, found, output = go(module, "go test -count=1 ./till", FORGED=forged)
    if found is None or not found.outcomes:  # go before 1.20 has no marks
        code, found, output = go(module, "go test -count=1 ./till", FORGED=forged.replace("\x16", ""))
    assert found is not None, output
    assert (code, found.outcomes) == (0, {"example.com/shop/till::TestOpens": "passed"})
    planted = Go().plant(module, found, TOKEN)
    assert planted == f"example.com/shop/till::TestOpens_{TOKEN}"
    code, after, _ = go(module, "go test -count=1 ./till", FORGED=forged.replace("\x16", ""))
    assert (code, after is None or planted in after.outcomes) == (0, False)


@pytest.mark.parametrize("command", ["go test ./cart", "go test ./till", "go test ./...", "go test -run Opens ./..."])
def test_a_planted_failure_is_reported_and_changes_no_other(command: str, module: Path) -> None:
    before = go(module, command)[1]
    assert before is not None
    planted = Go().plant(module, before, TOKEN)
    assert planted is not None
    code, after, output = go(module, command)
    assert after is not None, output
    assert (code, after.outcomes) == (1, {**before.outcomes, planted: "failed"})


def test_a_failure_is_planted_where_no_test_passes_yet(module: Path) -> None:
    shutil.rmtree(module / "till")
    code, before, _ = go(module, "go test -run Buy ./...", BUY="fail")
    assert (code, before) == (1, Found({"example.com/shop/cart::TestBuy": "failed"}))
    planted = Go().plant(module, Found({"example.com/shop/cart::TestBuy": "failed"}), TOKEN)
    assert planted == f"example.com/shop/cart::TestBuy_{TOKEN}"
    code, after, output = go(module, "go test -run Buy ./...")
    assert after is not None, output
    assert (code, after.failing) == (1, (planted,))


def test_a_failure_is_planted_in_a_package_that_cannot_be_built_yet(module: Path) -> None:
    write(module, {"cart/more_test.go": "package cart\n\nvar _ = Missing\n"})
    before = go(module, "go test ./cart")[1]
    assert before == Found({"example.com/shop/cart": "failed"})
    planted = Go().plant(module, before, TOKEN)
    write(module, {"cart/cart.go": "package cart\n\nvar Missing = 1\n"})
    code, after, output = go(module, "go test ./cart")
    assert planted is not None
    assert after is not None, output
    assert (code, after.failing) == (1, (planted,))


def test_a_shell_around_it_is_left_as_it_is(tmp_path: Path) -> None:
    command = 'bash -c "cd sub && go test ./..."'
    tree = write(tmp_path / "tree", {f"sub/{name}": content for name, content in FILES.items()})
    report = prepare(command, tree, tmp_path, tmp_path)
    assert (report.command, report.runner) == (command, None)


def test_c_has_to_stay_the_first_word(tmp_path: Path) -> None:
    for command in ("go test -C sub ./...", "go test -C=sub ./..."):
        assert prepare(command, tmp_path, tmp_path, tmp_path).command == command

"""Reports of ``python -m unittest``, from the real one: what ran, and that nothing else about the run changed."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import write

from goalrun.adapters.reports import Found, Report, prepare
from goalrun.adapters.reports.found import MAX_REPORT_BYTES
from goalrun.adapters.reports.unittest import Unittest
from goalrun.core.model import TestCounts

UNITTEST = f"{shlex.quote(sys.executable)} -m unittest"
TOKEN = "k3x9q"  # noqa: S105 - a part of a name
CASES = """import unittest

class CasesTest(unittest.TestCase):
    def test_good(self):
        pass

    def test_bad(self):
        self.assertEqual(1, 2)

    def test_error(self):
        raise ValueError

    def test_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)

    @unittest.skip("not now")
    def test_skipped(self):
        pass

    @unittest.expectedFailure
    def test_known(self):
        self.fail()

    @unittest.expectedFailure
    def test_surprise(self):
        pass

class SetUpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError

    def test_never(self):
        pass

if __name__ == "__main__":
    unittest.main()
"""
GOOD = """import unittest

class GoodTest(unittest.TestCase):
    def test_one(self):
        pass

    def test_two(self):
        pass

if __name__ == "__main__":
    unittest.main()
"""
PLACE = """import json, sys, unittest
import __main__

class PlaceTest(unittest.TestCase):
    def test_place(self):
        names = sorted(name for name in vars(__main__) if not name.startswith("__"))
        spec = __main__.__spec__
        where = (__main__.__file__, __main__.__package__, spec.name, spec.origin, sys.argv, sys.path, __name__)
        modules = sorted(name for name in sys.modules if name.startswith(("json.", "unittest.")))
        with open("place.json", "w") as file:
            json.dump([where, modules, set(names) <= {"executable", "main", "sys"}], file)
"""
SPAWNING = """import multiprocessing, unittest

def double(number):
    return number * 2

class SpawnTest(unittest.TestCase):
    def test_spawn(self):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            self.assertEqual(pool.map(double, [1, 2]), [2, 4])
"""
OWN_JSON = "def test_name():\n    return 'ours'\n"
OWN_JSON_TEST = """import json, unittest

class JsonTest(unittest.TestCase):
    def test_json(self):
        self.assertEqual(json.test_name(), "ours")
"""


def run(folder: Path, command: str, reports: Path) -> tuple[int, Found | None, str]:
    """A command with its report: exit status, report, output."""
    reports.mkdir(exist_ok=True)
    report = prepare(command, folder, reports, reports)
    output = reports / f"{report.path.name}.out"
    with output.open("wb") as file:
        done = subprocess.run(["bash", "-c", report.command], cwd=folder, stdout=file, stderr=file, check=False)
    return done.returncode, report.read(output), output.read_text("utf-8")


def plain(folder: Path, command: str) -> tuple[int, str]:
    """The same command as the user wrote it."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def without_seconds(output: str) -> list[str]:
    return [line for line in output.splitlines() if not line.startswith(("Ran ", '  File "'))]


def test_every_outcome_is_told_by_the_id_that_unittest_gives(tmp_path: Path) -> None:
    tree = write(
        tmp_path / "tree", {"tests/__init__.py": "", "tests/test_cases.py": CASES, "tests/test_broken.py": "?"}
    )
    code, found, output = run(tree, f"{UNITTEST} -v", tmp_path / "reports")
    assert found is not None
    here = "tests.test_cases.CasesTest"
    assert found.outcomes == {
        f"{here}.test_good": "passed",
        f"{here}.test_known": "passed",
        f"{here}.test_skipped": "skipped",
        f"{here}.test_bad": "failed",
        f"{here}.test_error": "failed",
        f"{here}.test_parts": "failed",
        f"{here}.test_surprise": "failed",
        "setUpClass (tests.test_cases.SetUpTest)": "failed",
        "unittest.loader._FailedTest.tests.test_broken": "failed",
    }
    plainly = plain(tree, f"{UNITTEST} -v")
    assert (code, sorted(without_seconds(output))) == (plainly[0], sorted(without_seconds(plainly[1])))
    assert run(tree, UNITTEST, tmp_path / "reports")[1] == found


@pytest.mark.parametrize(
    "arguments", ["", "-v tests.test_good", "discover -s tests", "tests/test_good.py", "-k one -b"]
)
def test_every_way_to_start_it_works_as_before(arguments: str, tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", {"tests/__init__.py": "", "tests/test_good.py": GOOD})
    code, found, output = run(tree, f"{UNITTEST} {arguments}", tmp_path / "reports")
    assert found is not None
    assert found.counts == TestCounts(passed=1 if "-k" in arguments else 2, failed=0, skipped=0)
    assert (code, without_seconds(output)) == (0, without_seconds(plain(tree, f"{UNITTEST} {arguments}")[1]))


def test_tests_find_the_same_surroundings_as_without_a_report(tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", {"test_place.py": PLACE})
    assert run(tree, f"A=1 {UNITTEST} test_place", tmp_path / "reports")[0] == 0
    with_report = json.loads((tree / "place.json").read_text("utf-8"))
    assert plain(tree, f"{UNITTEST} test_place")[0] == 0
    assert json.loads((tree / "place.json").read_text("utf-8")) == with_report


def test_python_options_stay(tmp_path: Path) -> None:
    """Under -P the folder of the check is not searched."""
    tree = write(tmp_path / "tree", {"test_good.py": GOOD})
    command = f"{shlex.quote(sys.executable)} -P -B -m unittest test_good"
    code, _, output = run(tree, command, tmp_path / "reports")
    assert (code, "No module named 'test_good'" in output) == (1, True)
    assert not list(tree.glob("__pycache__"))


@pytest.mark.parametrize("files", [{"test_spawn.py": SPAWNING}, {"test_j.py": OWN_JSON_TEST, "json.py": OWN_JSON}])
def test_children_and_modules_named_like_the_library_do_not_meet_the_runner(
    files: dict[str, str], tmp_path: Path
) -> None:
    code, found, output = run(write(tmp_path / "tree", files), UNITTEST, tmp_path / "reports")
    assert code == 0, output
    assert found is not None
    assert found.counts == TestCounts(passed=1, failed=0, skipped=0)


def test_no_tests_at_all_is_a_failure(tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", {"test_none.py": "", "test_skip.py": "import unittest\nraise unittest.SkipTest"})
    code, found, _ = run(tree, f"{UNITTEST} test_none", tmp_path / "reports")
    assert (code, found) == (5, Found({}))
    code, found, _ = run(tree, f"{UNITTEST} discover -p test_skip.py", tmp_path / "reports")
    assert (code, found) == (0, Found({"unittest.loader.ModuleSkipped.test_skip": "skipped"}))


@pytest.mark.parametrize(
    "product", ["import os; os._exit(0)", "import sys; sys.exit(0)", "import os, signal; os.kill(os.getpid(), 9)"]
)
def test_a_process_that_ends_early_leaves_no_report(product: str, tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", {"shop.py": product, "test_shop.py": f"import shop\n{GOOD}"})
    code, found, _ = run(tree, f"{UNITTEST} test_shop", tmp_path / "reports")
    assert (code == 0) == ("exit" in product)
    assert found is None


def test_a_fork_that_a_test_left_behind_does_not_report(tmp_path: Path) -> None:
    fork = GOOD.replace("pass", "import os\n        if os.fork() == 0: raise SystemExit('child')", 1)
    code, found, _ = run(write(tmp_path / "tree", {"test_fork.py": fork}), UNITTEST, tmp_path / "reports")
    assert (code, found and found.counts) == (0, TestCounts(passed=2, failed=0, skipped=0))
    assert [path.suffix for path in (tmp_path / "reports").iterdir() if path.suffix != ".out"] == [""]


@pytest.mark.parametrize(
    ("command", "planted"),
    [
        ("", f"test_shop.GoodTest.test_one_{TOKEN}"),
        ("test_shop.GoodTest", f"test_shop.GoodTest.test_one_{TOKEN}"),
        ("discover -s tests", f"test_deep.GoodTest.test_one_{TOKEN}"),
        ("discover -k one", f"test_shop.GoodTest.test_one_{TOKEN}"),
    ],
)
def test_a_planted_failure_is_reported_and_changes_no_other(command: str, planted: str, tmp_path: Path) -> None:
    one = GOOD.replace("test_two", "helper")
    tree = write(tmp_path / "tree", {"test_shop.py": one, "tests/test_deep.py": one, ".venv/test_shop.py": one})
    _, before, _ = run(tree, f"{UNITTEST} {command}", tmp_path / "reports")
    assert before is not None
    assert Unittest().plant(tree, before, TOKEN) == planted
    code, after, _ = run(tree, f"{UNITTEST} {command}", tmp_path / "reports")
    assert after is not None
    assert (code, after.outcomes) == (1, {**before.outcomes, planted: "failed"})


def test_tests_of_a_class_that_is_not_plainly_there_get_one_beside_them(tmp_path: Path) -> None:
    made = (
        "import unittest\nclass Base:\n    def test_a(self): pass\nMade = type('Made', (Base, unittest.TestCase), {})\n"
    )
    tree = write(tmp_path / "tree", {"test_made.py": made})
    _, before, _ = run(tree, UNITTEST, tmp_path / "reports")
    assert before is not None
    planted = Unittest().plant(tree, before, TOKEN)
    assert planted == f"test_made.TestK3x9q.test_a_{TOKEN}"
    code, after, _ = run(tree, UNITTEST, tmp_path / "reports")
    assert after is not None
    assert (code, after.outcomes) == (1, {**before.outcomes, planted: "failed"})


def test_nothing_is_planted_where_the_file_is_not_sure_or_outside(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"test_shop.py": GOOD})
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "test_shop.py").symlink_to(outside / "test_shop.py")
    (linked / "sub").symlink_to(outside, target_is_directory=True)
    twice = write(tmp_path / "twice", {"a/test_shop.py": GOOD, "b/test_shop.py": GOOD})
    found = Found({"test_shop.GoodTest.test_one": "passed", "setUpClass (test_shop.X)": "failed"})
    for tree in (linked, twice, tmp_path / "outside" / ".."):
        assert Unittest().plant(tree, found, TOKEN) is None
    assert Unittest().plant(outside, Found({}), TOKEN) is None
    assert (outside / "test_shop.py").read_text("utf-8") == GOOD


@pytest.mark.parametrize(
    "command",
    ["unittest", "python -m unittest --help", "python -m unittest2", "python -X dev -m unittest", "python2 -m unittest",
     "python -c 'import unittest' -m unittest", "python tests.py", "coverage run -m unittest",
     "python -m unittest; true"],
)  # fmt: skip
def test_every_other_command_is_left_as_it_is(command: str, tmp_path: Path) -> None:
    report = prepare(command, tmp_path, tmp_path, tmp_path)
    assert (report.command, report.runner) == (command, None)


@pytest.mark.parametrize(
    "content",
    ["", "no json", "[]", "{}", "[" * 100_000, '{"tests": []}', '{"complete": true, "tests": 3}',
     '{"complete": true, "tests": {}, "more": 1}', '{"complete": true, "tests": [["a", "good"]]}',
     '{"complete": true, "tests": [["a"]]}', '{"complete": true, "tests": [[1, "passed"]]}',
     '{"complete": true, "tests": ["ab"]}', '{"complete": true, "tests": [["", "passed"]]}',
     '{"complete": true, "tests": [["a", ["passed"]]]}', '{"complete": 1, "tests": [["a", "passed"]]}',
     '{"complete": false, "tests": [["a", "passed"]]}',
     '{"complete": true, "tests": [["a", "passed"], ["a", "passed"]]}',
     "\x00\ud800"],
)  # fmt: skip
def test_what_is_not_a_complete_report_is_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    assert Report("", path, Unittest()).read(tmp_path / "output") is None


def test_a_report_that_is_huge_or_missing_or_a_link_is_none(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_REPORT_BYTES + 1)
    (tmp_path / "real").write_text('{"complete": true, "tests": []}', "utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("huge", "missing", "link"):
        assert Unittest().read(tmp_path / name, tmp_path / "output") is None
    assert Unittest().read(tmp_path / "real", tmp_path / "output") == Found({})


def test_what_a_test_prints_is_no_report(tmp_path: Path) -> None:
    forged = json.dumps({"complete": True, "tests": [["forged", "passed"]]})
    loud = GOOD.replace("pass", f"print({forged!r}, flush=True)")
    _, found, output = run(write(tmp_path / "tree", {"test_loud.py": loud}), UNITTEST, tmp_path / "reports")
    assert "forged" in output
    assert found is not None
    assert set(found.outcomes) == {"test_loud.GoodTest.test_one", "test_loud.GoodTest.test_two"}

"""Reports of JavaScript test programs, with the real ones wherever they can be had."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from support import write

from goalrun.adapters import reports
from goalrun.adapters.reports.found import Found, Outcome
from goalrun.adapters.reports.javascript import Jest, Mocha, NodeTest, NpmTest, Vitest
from goalrun.core.evidence import one_line
from goalrun.core.model import TestCounts

RUNNERS = {runner.name: runner for runner in (NodeTest(), Jest(), Vitest(), Mocha(), NpmTest())}
PACKAGES = ("jest@29", "vitest@3", "mocha@11")
WORD = "k3x9"
CANARY = f"handles {WORD}"
OK: Outcome = "passed"


class Ran(NamedTuple):
    """What came of a command."""

    runner: reports.Runner
    exit_code: int
    found: Found | None
    printed: str


@pytest.fixture(scope="session")
def node() -> str:
    """The node of this machine."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


@pytest.fixture(scope="session")
def packages(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real test programs, in a folder of their own."""
    del node
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    base = tmp_path_factory.getbasetemp()
    # Once for all processes of a run.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "npm"
    with FileLock(f"{folder}.lock"):
        if not (folder / "installed").exists():
            _install(folder)
            (folder / "installed").touch()
    return folder / "node_modules"


def _install(folder: Path) -> None:
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    write(folder, {"package.json": '{"private": true}'})
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm install does not finish")
    if done.returncode != 0:
        pytest.skip(f"npm install fails: {done.stderr[-300:]}")


def run(command: str, tree: Path) -> Ran:
    """Run a command with a report, as a check does."""
    folder = tree.parent / "reports"
    folder.mkdir(exist_ok=True)
    before = {path for path in tree.rglob("*") if "node_modules" not in path.parts}
    report = reports.prepare(command, tree, folder, folder)
    assert report.runner is not None
    environment = {**os.environ, "CI": "1", "NO_COLOR": "1", "npm_config_update_notifier": "false"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", report.command],
        cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert {path for path in tree.rglob("*") if "node_modules" not in path.parts} == before
    found = report.read(folder / "output")
    return Ran(report.runner, done.returncode, found, done.stdout + done.stderr)


def tree_of(folder: Path, files: Mapping[str, str], packages: Path | None = None) -> Path:
    """A project, perhaps with test programs in reach."""
    tree = write(folder / "project", {"package.json": "{}", **files})
    if packages is not None:
        (tree / "node_modules").symlink_to(packages)
    return tree


def check_canary(command: str, tree: Path, before: Ran) -> str:
    """Plant a failing test: it is told of, by the id that was promised, and nothing else changes. The file's name."""
    assert before.found is not None
    test = before.runner.plant(tree, before.found, WORD)
    assert test is not None
    after = run(command, tree)
    assert after.found is not None
    assert after.exit_code != 0
    assert dict(after.found.outcomes) == {**before.found.outcomes, test: "failed"}
    return test.split("::", maxsplit=1)[0]


NODE = {
    "lib.js": "exports.add = (a, b) => a + b;\n",
    "test/a.test.js": """const { test, describe, it } = require("node:test");
const assert = require("node:assert");
const { add } = require("../lib.js");
test("adds", () => assert.equal(add(1, 2), 3));
test.skip("later", () => {});
test.todo("some day");
describe("group", () => { describe("inner", () => { it("adds", () => assert.equal(add(2, 2), 4)); }); });
test("parent", async (t) => { await t.test("child", () => {}); })""",
    "test/b.test.mjs": 'import { test } from "node:test";\ntest("in a module", () => {});\n',
}
NODE_FOUND: dict[str, Outcome] = {
    "test/a.test.js::adds": OK,
    "test/a.test.js::later": "skipped",
    "test/a.test.js::some day": "skipped",
    "test/a.test.js::group > inner > adds": OK,
    "test/a.test.js::parent > child": OK,
    "test/a.test.js::parent": OK,
    "test/b.test.mjs::in a module": OK,
}
JEST = {
    "lib.js": "exports.add = (a, b) => a + b;\n",
    "test/a.test.js": """const { add } = require("../lib.js");
test("adds", () => { expect(add(1, 2)).toBe(3); });
test.skip("later", () => {});
test.todo("some day");
describe("group", () => { describe("inner", () => { it("adds", () => { expect(add(2, 2)).toBe(4); }); }); })""",
    "test/b.test.js": 'test("alone", () => {});\n',
}
VITEST = {
    "package.json": '{"type": "module"}',
    "lib.ts": "export const add = (a: number, b: number): number => a + b;\n",
    "test/a.test.ts": """import { describe, expect, it, test } from "vitest";
import { add } from "../lib";
test("adds", () => { expect(add(1, 2)).toBe(3); });
test.skip("later", () => {});
test.todo("some day");
describe("group", () => { describe("inner", () => { it("adds", () => { expect(add(2, 2)).toBe(4); }); }); })""",
    "test/b.test.js": 'import { test } from "vitest";\ntest("alone", () => {});\n',
}
MOCHA = {
    "lib.js": "exports.add = (a, b) => a + b;\n",
    "test/a.test.js": """const assert = require("node:assert");
const { add } = require("../lib.js");
it("adds", () => assert.equal(add(1, 2), 3));
it.skip("later", () => {});
it("some day");
describe("group", () => { describe("inner", () => { it("adds", () => assert.equal(add(2, 2), 4)); }); })""",
    "test/b.test.mjs": 'it("alone", () => {});\n',
}


def expected(first: str, second: str) -> dict[str, Outcome]:
    """What jest, vitest and mocha find in the projects above."""
    return {
        f"{first}::adds": OK,
        f"{first}::later": "skipped",
        f"{first}::some day": "skipped",
        f"{first}::group > inner > adds": OK,
        f"{second}::alone": OK,
    }


PROJECTS: dict[str, tuple[dict[str, str], dict[str, Outcome]]] = {
    "npx jest": (JEST, expected("test/a.test.js", "test/b.test.js")),
    "node_modules/.bin/vitest run": (VITEST, expected("test/a.test.ts", "test/b.test.js")),
    "npx mocha 'test/**/*.test.{js,mjs}'": (MOCHA, expected("test/a.test.js", "test/b.test.mjs")),
}
LIBRARY = {command: next(name for name in files if "lib" in name) for command, (files, _) in PROJECTS.items()}


@pytest.mark.parametrize("command", ["node --test", "CI=1 node --no-warnings --test --test-reporter=dot"])
def test_node_tells_of_each_test_the_same_in_every_run_and_of_a_canary(command: str, tmp_path: Path, node: str) -> None:
    del node
    tree = tree_of(tmp_path, NODE)
    first, second = run(command, tree), run(command, tree)
    assert first.exit_code == 0, first.printed
    assert first.found is not None
    assert dict(first.found.outcomes) == NODE_FOUND
    assert first.found == second.found
    assert first.found.counts == TestCounts(passed=5, failed=0, skipped=2)
    check_canary(command, tree, first)


@pytest.mark.parametrize("name", ["test/a.test.js", "test/b.test.mjs"])
def test_a_canary_fails_in_either_kind_of_module(name: str, tmp_path: Path, node: str) -> None:
    del node
    tree = tree_of(tmp_path, {"lib.js": NODE["lib.js"], name: NODE[name]})
    assert check_canary("node --test", tree, run("node --test", tree)) == name


def test_failing_tests_and_files_that_do_not_load_have_an_id(tmp_path: Path, node: str) -> None:
    del node
    tree = tree_of(tmp_path, {
        "a.test.js": 'const { test, describe } = require("node:test");\n'
        'test("bad", () => { throw new Error("what went wrong"); });\ndescribe("group", () => { throw new Error(); });',
        "b.test.js": "this is no JavaScript",
    })  # fmt: skip
    ran = run("node --test", tree)
    assert ran.exit_code == 1
    assert ran.found is not None
    assert dict(ran.found.outcomes) == dict.fromkeys(("a.test.js::bad", "a.test.js::group", "b.test.js"), "failed")
    assert "what went wrong" in ran.printed


def test_a_file_that_ends_early_lacks_its_tests(tmp_path: Path, node: str) -> None:
    del node
    tree = tree_of(tmp_path, {**NODE, "lib.js": "process.exit(0);\n"})
    ran = run("node --test", tree)
    assert ran.exit_code == 0
    assert ran.found is not None
    assert dict(ran.found.outcomes) == {"test/b.test.mjs::in a module": "passed"}


@pytest.mark.parametrize("command", PROJECTS)
def test_each_program_tells_of_each_test_the_same_in_every_run_and_of_a_canary(
    command: str, tmp_path: Path, packages: Path
) -> None:
    files, outcomes = PROJECTS[command]
    tree = tree_of(tmp_path, files, packages)
    first, second = run(command, tree), run(command, tree)
    assert first.exit_code == 0, first.printed
    assert first.found is not None
    assert dict(first.found.outcomes) == outcomes
    assert first.found == second.found
    check_canary(command, tree, first)


@pytest.mark.parametrize("command", PROJECTS)
@pytest.mark.parametrize("suffix", [0, 1])
def test_a_canary_can_go_into_every_file(command: str, suffix: int, tmp_path: Path, packages: Path) -> None:
    files, outcomes = PROJECTS[command]
    tree = tree_of(tmp_path, files, packages)
    chosen = sorted({test.split("::")[0] for test in outcomes})[suffix]
    found = Found({test: outcome for test, outcome in outcomes.items() if test.startswith(chosen)})
    test = run(command, tree).runner.plant(tree, found, WORD)
    assert test == f"{chosen}::{CANARY}"
    ran = run(command, tree)
    assert ran.exit_code != 0
    assert ran.found is not None
    assert ran.found.failing == (test,)


@pytest.mark.parametrize("command", PROJECTS)
def test_a_failing_test_is_named_and_what_is_printed_says_why(command: str, tmp_path: Path, packages: Path) -> None:
    files, outcomes = PROJECTS[command]
    library = LIBRARY[command]
    tree = tree_of(tmp_path, {**files, library: files[library].replace("a + b;", "a * 10 + b;")}, packages)
    ran = run(command, tree)
    assert ran.exit_code != 0
    assert ran.found is not None
    assert ran.found.failing == tuple(test for test in outcomes if test.endswith("adds"))
    assert all(value in ran.printed for value in ("12", "22", "group", "adds"))


@pytest.mark.parametrize("command", PROJECTS)
def test_ending_the_process_with_status_0_leaves_no_report_that_has_all_tests(
    command: str, tmp_path: Path, packages: Path
) -> None:
    files, outcomes = PROJECTS[command]
    tree = tree_of(tmp_path, {**files, LIBRARY[command]: "process.exit(0);\nexport {};\n"}, packages)
    if not command.endswith("run"):
        (tree / LIBRARY[command]).write_text("process.exit(0);\n", "utf-8")
    ran = run(command, tree)
    passed = {test for test, outcome in outcomes.items() if outcome == "passed"}
    assert ran.found is None or not passed <= {test for test, how in ran.found.outcomes.items() if how == "passed"}


@pytest.mark.parametrize(
    ("command", "files"),
    [("node --test", {
        "lib.js": 'require("node:assert").strictEqual = () => {};\n',
        "a.test.js": 'require("./lib.js");\nconst assert = require("node:assert");\n'
        'require("node:test").test("one", () => assert.strictEqual(1, 2));\n'}),
     ("npx jest", {
        "lib.js": "globalThis.expect = () => ({ toBe() {} });\n",
        "a.test.js": 'require("./lib.js");\ntest("one", () => { expect(1).toBe(2); });\n'})],
)  # fmt: skip
def test_a_canary_that_passes_gives_away_assertions_that_were_disarmed(
    command: str, files: dict[str, str], tmp_path: Path, packages: Path
) -> None:
    tree = tree_of(tmp_path, files, packages)
    ran = run(command, tree)
    assert ran.exit_code == 0
    assert ran.found is not None
    test = ran.runner.plant(tree, ran.found, WORD)
    assert test is not None
    after = run(command, tree)
    assert after.found is not None
    assert after.found.outcomes[test] == "passed"


@pytest.mark.parametrize("command", ["npx jest", "npx vitest run"])
def test_a_file_that_does_not_load_or_fails_after_its_tests_has_an_id(
    command: str, tmp_path: Path, packages: Path
) -> None:
    start = 'import { afterAll, test } from "vitest";\n' if "vitest" in command else ""
    files = {
        "a.test.js": "this is no JavaScript",
        "b.test.js": f'{start}afterAll(() => {{ throw new Error(); }});\ntest("fine", () => {{}});\n',
        "c.test.js": 'import nothing from "./nowhere.js";\n',
    }
    ran = run(command, tree_of(tmp_path, files, packages))
    assert ran.exit_code != 0
    assert ran.found is not None
    assert sorted(ran.found.failing) == ["a.test.js", "b.test.js", "c.test.js"]


def test_mocha_tells_of_hooks_that_fail_and_of_no_file_that_does_not_load(tmp_path: Path, packages: Path) -> None:
    hook = 'describe("group", () => { before(() => { throw new Error("no ground"); }); it("never", () => {}); });\n'
    tree = tree_of(tmp_path, {"test/a.js": hook}, packages)
    ran = run("npx mocha --parallel", tree)
    assert ran.exit_code != 0
    assert ran.found is not None
    assert ran.found.failing == ('test/a.js::group > "before all" hook for "never"',)
    assert "no ground" in ran.printed
    write(tree, {"test/b.js": "this is no JavaScript"})
    ran = run("npx mocha", tree)
    assert ran.exit_code != 0
    assert ran.found is None


def test_mochas_other_interfaces_take_a_canary(tmp_path: Path, packages: Path) -> None:
    tree = tree_of(tmp_path, {"test/a.js": 'suite("group", () => { test("one", () => {}); })'}, packages)
    command = "npx mocha --ui tdd --reporter dot"
    check_canary(command, tree, run(command, tree))


@pytest.mark.parametrize(
    ("command", "script", "around"),
    [("npm test", "jest --ci", {}), ("npm t", "NODE_ENV=test jest", {"pretest": "echo first"}),
     ("npm run test -- --silent", "node --no-warnings node_modules/.bin/jest", {}),
     ("A=b npm test", "A='b c' npx jest test", {"posttest": "echo last"})],
)  # fmt: skip
def test_npm_test_is_asked_through_the_program_that_it_runs(
    command: str, script: str, around: dict[str, str], tmp_path: Path, packages: Path
) -> None:
    manifest = json.dumps({"scripts": {"test": script, **around}})
    tree = tree_of(tmp_path, {**JEST, "package.json": manifest}, packages)
    ran = run(command, tree)
    assert ran.exit_code == 0, ran.printed
    assert ran.runner.name == "npm test"
    assert ran.found is not None
    assert dict(ran.found.outcomes) == PROJECTS["npx jest"][1]
    assert all(script.split()[-1] in ran.printed for script in around.values())
    check_canary(command, tree, ran)


@pytest.mark.parametrize("script", ["node --test", "A='b c' node --test 'test/'", "node --test test/a.test.js"])
def test_npm_test_that_runs_node_is_asked_too(script: str, tmp_path: Path, node: str) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    del node
    script = script.replace("'test/'", "test/a.test.js test/b.test.mjs")
    tree = tree_of(tmp_path, {**NODE, "package.json": json.dumps({"scripts": {"test": script}})})
    ran = run("npm test", tree)
    assert ran.exit_code == 0, ran.printed
    assert ran.found is not None
    assert ran.found.outcomes.items() <= NODE_FOUND.items()
    assert "test/a.test.js::adds" in ran.found.outcomes
    check_canary("npm test", tree, ran)


@pytest.mark.parametrize(
    "command",
    ["node test.js --test", "node --test --watch", "node --test --test-reporter=tap --test-reporter=dot",
     "node -e 1 --test", "node", "node --check --test", "deno --test", "node --test -- a.js", "jest --json",
     "jest --outputFile=x", "jest --watch", "jest -- a", "jest --help", "npx jest@29", "npx", "npx cowsay jest",
     "npm exec jest", "nyc mocha", "vitest watch", "vitest bench", "vitest --watch", "vitest run --outputFile=x",
     "vitest --output-file.json x", "vitest run --ui", "mocha --dry-run", "mocha -w", "mocha -O output=x",
     "mocha --reporter-option output=x", "mocha --version", "node jest --json", "node tools/test.js",
     "pnpm exec", "pnpm test --bail", "npm run lint", "npm test --workspaces", "npm ci", "npm"],
)  # fmt: skip
def test_every_other_command_is_left_alone(command: str, tmp_path: Path) -> None:
    write(tmp_path, {"package.json": '{"scripts": {"test": "jest", "lint": "jest"}}'})
    assert all(runner.prepare(command.split(), tmp_path, Path("/r/x")) is None for runner in RUNNERS.values())


@pytest.mark.parametrize(
    "script",
    ["jest && eslint .", "jest; true", "jest | tee log", "jest || exit 0", "jest $ARGS", "jest test/*.js", "jest `ls`",
     "(jest)", "jest > log", "jest 'open", "", "A=1", "echo jest", "make test", "jest --watch", "npm run jest", "tsc"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["npm test", "yarn test", "pnpm run test"])
def test_a_script_that_is_no_plain_run_of_a_known_program_is_left_alone(
    script: str, command: str, tmp_path: Path
) -> None:
    write(tmp_path, {"package.json": json.dumps({"scripts": {"test": script}})})
    assert NpmTest().prepare(command.split(), tmp_path, Path("/r/x")) is None


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", '{"scripts": []}', '{"scripts": {"test": 7}}', '{"scripts": {"test": null}}', "[" * 100_000, "7",
     "{}", '{"scripts": {"Test": "jest"}}', b"\xff\xfe".decode("latin-1")],
)  # fmt: skip
def test_a_manifest_of_the_wrong_shape_is_left_alone(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(manifest, "latin-1")
    assert NpmTest().prepare(["npm", "test"], tmp_path, Path("/r/x")) is None
    assert NpmTest().plant(tmp_path, Found({"a.js::b": "passed"}), WORD) is None


def test_a_manifest_that_is_missing_or_a_link_is_left_alone(tmp_path: Path) -> None:
    assert NpmTest().prepare(["npm", "test"], tmp_path, Path("/r/x")) is None
    write(tmp_path, {"real.json": '{"scripts": {"test": "jest"}}'})
    (tmp_path / "package.json").symlink_to("real.json")
    assert NpmTest().prepare(["npm", "test"], tmp_path, Path("/r/x")) is None


def test_a_node_script_with_files_keeps_the_scripts_around_it(tmp_path: Path) -> None:
    write(tmp_path, {"package.json": '{"scripts": {"pretest": "tsc", "test": "node --test a.js"}}'})
    assert NpmTest().prepare(["npm", "test"], tmp_path, Path("/r/x")) is None
    write(tmp_path, {"package.json": '{"scripts": {"pretest": "tsc", "test": "node --test"}}'})
    prepared = NpmTest().prepare(["npm", "test"], tmp_path, Path("/r/x"))
    assert prepared is not None
    assert prepared[-7:-3] == ["npm", "test", "--", "--test-reporter=/r/x.mjs"]


@pytest.mark.parametrize(
    ("words", "changed"),
    [("npm test", "npm test --"), ("npm t -- a", "npm t -- a"), ("yarn test", "yarn test"),
     ("yarn run test a", "yarn run test a"), ("pnpm run test", "pnpm run test"), ("pnpm test", "pnpm run test")],
)  # fmt: skip
def test_arguments_are_handed_on_as_each_package_manager_wants_it(words: str, changed: str, tmp_path: Path) -> None:
    write(tmp_path, {"package.json": '{"scripts": {"test": "cross-env A=1 jest"}}'})
    prepared = NpmTest().prepare(words.split(), tmp_path, Path("/r/x"))
    assert prepared is not None
    assert prepared[4:] == [*changed.split(), "--ci", "--json", "--outputFile=/r/x"]


def entry(**changes: object) -> dict[str, object]:
    """A test in jest's JSON."""
    return {"ancestorTitles": ["g"], "title": "t", "status": "passed", **changes}


def jest(*entries: object, **changes: object) -> dict[str, object]:
    """Jest's JSON of one file."""
    return {"testResults": [{"name": "/tree/a.js", "status": "passed", "assertionResults": list(entries), **changes}]}


def left(folder: Path, content: str | bytes, start: str = "/tree\n") -> Path:
    """A report as a command leaves it."""
    path = folder / "report"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.with_name("report.start").write_text(start, "utf-8")
    return path


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)
@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", "null", '{"tests": 1}', '{"tests": [["a"]]}', '{"tests": [["a", ["b"], "good"]]}',
     '{"tests": [["a", ["b"], "passed", 1]]}', '{"tests": [["a", "b", "passed"]]}', '{"tests": [[1, ["b"], "passed"]]}',
     '{"tests": []', '{"tests": [], "success": true}', '{"testResults": {}}', "[" * 200_000, '{"tests":' * 50_000,
     b"\xff\xfe\x00", b'{"tests": [["\xff", [], "passed"]]}', "\0", "<testsuites/>", '{"tests": []} {"tests": []}',
     *(json.dumps(wrong) for wrong in (
         jest(entry(status="great")), jest(entry(status=None)), jest(entry(title=7)), jest(entry(ancestorTitles="g")),
         jest(entry(ancestorTitles=[["g"]])), jest("t"), jest(name=7), jest(name=""), jest(status=None),
         jest(assertionResults=None), {**jest(), "wasInterrupted": "no"}))],
)  # fmt: skip
def test_content_of_the_wrong_shape_is_refused(runner: reports.Runner, content: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, nobody reads it
        runner.read(left(tmp_path, content), tmp_path / "output")


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)
def test_what_is_missing_or_not_complete_is_no_report(runner: reports.Runner, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert runner.read(tmp_path / "nothing", output) is None
    assert runner.read(tmp_path, output) is None
    assert runner.read(left(tmp_path, ""), output) is None
    assert runner.read(left(tmp_path, json.dumps({**jest(entry()), "wasInterrupted": True})), output) is None
    assert runner.read(left(tmp_path, '{"tests": []}', start="relative"), output) is None
    report = left(tmp_path, '{"tests": []}')
    assert runner.read(report, output) == Found({})
    report.with_name("report.start").unlink()
    assert runner.read(report, output) is None
    (tmp_path / "link").symlink_to(report)
    assert runner.read(tmp_path / "link", output) is None


def test_totals_that_a_report_claims_do_not_count(tmp_path: Path) -> None:
    claims = {**jest(entry(status="failed"), entry(title="u", status="todo")), "success": True, "numFailedTests": 0}
    found = Jest().read(left(tmp_path, json.dumps(claims)), tmp_path / "output")
    assert found is not None
    assert dict(found.outcomes) == {"a.js::g > t": "failed", "a.js::g > u": "skipped"}


def test_a_file_without_a_failed_test_that_did_not_pass_has_failed(tmp_path: Path) -> None:
    for status in ("failed", "exploded", ""):
        found = Vitest().read(left(tmp_path, json.dumps(jest(entry(), status=status))), tmp_path / "output")
        assert found is not None
        assert found.failing == ("a.js",)


def test_ids_are_relative_bounded_and_safe_to_show(tmp_path: Path) -> None:
    tests = [
        ["/tree/a.js", ["x\u202e\x1b[2J\n" + "y" * 900], "failed"],
        ["/other/b.js", ["z"], "passed"],
        ["", [], "failed"],
    ]
    found = Mocha().read(left(tmp_path, json.dumps({"tests": tests})), tmp_path / "output")
    assert found is not None
    assert all(test == one_line(test) for test in found.outcomes)
    assert list(found.outcomes)[1:] == ["../other/b.js::z", ""]


def test_a_group_without_a_name_is_left_out_and_a_test_without_one_is_no_file(tmp_path: Path) -> None:
    content = jest(entry(ancestorTitles=["", "g", ""]), entry(ancestorTitles=[], title=""))
    found = Vitest().read(left(tmp_path, json.dumps(content)), tmp_path / "output")
    assert found is not None
    assert dict(found.outcomes) == {"a.js::g > t": "passed", "a.js::": "passed"}


@pytest.mark.parametrize("runner", [Jest(), NodeTest()], ids=lambda runner: runner.name)
def test_a_canary_goes_nowhere_but_into_a_script_of_the_tree(runner: reports.Runner, tmp_path: Path) -> None:
    write(tmp_path, {"outside.js": "", "elsewhere/in.js": "", "tree/data.json": "", "tree/sub.js/x": ""})
    tree = tmp_path / "tree"
    (tree / "link.js").symlink_to("../outside.js")
    (tree / "folder").symlink_to("../elsewhere")
    names = ["../outside.js", f"{tmp_path}/outside.js", "link.js", "folder/in.js", "data.json", "sub.js", "gone.js",
             "x" * 290 + ".js", "", ".", "sub.js/../../outside.js"]  # fmt: skip
    assert runner.plant(tree, Found({f"{name}::t": "passed" for name in names}), WORD) is None
    assert (tmp_path / "outside.js").read_text("utf-8") == ""
    assert (tmp_path / "elsewhere/in.js").read_text("utf-8") == ""
    assert runner.plant(tree, Found({"data.json": "failed"}), WORD) is None


def test_the_token_chooses_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"a.js": "", "b.js": ""})
    found = Found({"a.js::t": "passed", "b.js::t": "passed"})
    assert {Jest().plant(tmp_path, found, token) for token in ("10", "11")} == {"a.js::handles 10", "b.js::handles 11"}


def test_what_a_program_without_details_prints_still_names_the_failure(tmp_path: Path, packages: Path) -> None:
    """Where mocha itself cannot be found from its reporter, what fails is printed plainly."""
    tree = tree_of(tmp_path, {"test/a.js": 'it("bad", () => { throw new Error("why"); });\n'}, packages)
    loader = tree / "start.js"
    cli = "./node_modules/mocha/lib/cli/cli.js"
    loader.write_text(f'const {{ main }} = require("{cli}");\nprocess.mainModule = undefined;\nmain();\n', "utf-8")
    folder = tmp_path / "reports"
    folder.mkdir()
    words = Mocha().prepare(["mocha"], tree, folder / "x")
    assert words is not None
    words[words.index("mocha") : words.index("mocha") + 1] = ["node", str(loader)]
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no details" in done.stdout
    assert "Error: why" in done.stdout
    assert Mocha().read(folder / "x", folder) == Found({"test/a.js::bad": "failed"})

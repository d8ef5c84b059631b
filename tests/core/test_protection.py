import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalrun.core.manifests import harness_changed, is_mixed_manifest
from goalrun.core.mentions import Mentions
from goalrun.core.model import Tamper
from goalrun.core.protection import (
    Change,
    Finding,
    Protection,
    bad_glob,
    in_test_root,
    matches,
)
from goalrun.core.spec import VerificationSpec

BASE = (
    "README.md", "shop.py", "src/app.py", "src/pkg/__init__.py", "lib/x.js", "Makefile", "pyproject.toml",
    "tests/helpers.py", "tests/test_shop.py", "tests/data/a.json", "test/unit.rb", "check.sh", "sub/check.sh",
    "src/legacy_test.go", "conf/settings.ini",
)  # fmt: skip
Edit = Literal["modified", "deleted", "added"]


def found(
    path: str, edit: Edit = "added", *, base: tuple[str, ...] = BASE, checks: tuple[str, ...] = (), **spec: object
) -> str:
    """The kind of finding that an edit is; "" where it is free."""
    subfolder = str(spec.pop("subfolder", ""))
    protection = Protection(
        spec=VerificationSpec.model_validate(spec), checks=checks, base_files=frozenset(base), subfolder=subfolder
    )
    change = Change(path=path, before=edit != "added", after=edit != "deleted")
    finding = protection.finding(change)
    assert finding is None or finding.path == path
    return finding.kind if finding is not None else ""


PROTECTED = [
    # Tests and their data
    "tests/test_shop.py", "tests/data/a.json", "a/b/__tests__/x.ts", "test/unit.rb", "spec/a_spec.rb",
    "testdata/golden", "pkg/__snapshots__/x.snap", "e2e/login.ts", "src/test_x.py", "src/x_test.py", "src/x_test.go",
    "src/x.test.tsx", "src/x.spec.mjs", "out.golden",
    # Python
    "conftest.py", "src/conftest.py", "pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", "sub/pyproject.toml",
    "noxfile.py", ".coveragerc", "mypy.ini", "ruff.toml", ".flake8", "sitecustomize.py", "x.pth", "requirements.txt",
    "requirements-dev.txt", "uv.lock", "poetry.lock", ".python-version",
    # JavaScript
    "package.json", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", ".npmrc", "jest.config.ts", "vitest.config.mts",
    "vite.config.js", ".mocharc.cjs", "babel.config.js", "playwright.config.ts", "tsconfig.json", "tsconfig.build.json",
    ".eslintrc.json", "eslint.config.mjs", "deno.json", "bunfig.toml",
    # Rust
    "Cargo.toml", "crates/a/Cargo.toml", "Cargo.lock", ".cargo/config.toml", "rust-toolchain.toml", "clippy.toml",
    # Go
    "go.mod", "go.sum", "go.work", ".golangci.yml",
    # Make and its like
    "Makefile", "sub/GNUmakefile", "rules.mk", "justfile", "Taskfile.yml", "Rakefile", "phpunit.xml.dist",
    # CI and goalrun
    ".github/workflows/ci.yml", ".gitlab-ci.yml", ".circleci/config.yml", "Jenkinsfile", ".pre-commit-config.yaml",
    "goalrun.toml", ".goalrun/flows/a.toml", ".gitmodules",
]  # fmt: skip
FREE = [
    "README.md", "shop.py", "src/app.py", "lib/x.js", "src/testing.py", "contest.py", "src/latest.js", "attests/x.py",
    "src/spectrum/x.py", "tests", "docs/tests.md", "setup.py", "main.go", "src/lib.rs", "index.html", "data.json",
    ".github/CODEOWNERS", "src/makefile.py",
]  # fmt: skip


@pytest.mark.parametrize("path", PROTECTED)
def test_tests_and_harness_of_every_ecosystem_are_protected(path: str) -> None:
    base = (*BASE, path)
    assert found(path, "modified", base=base) == "modified"
    assert found(path, "deleted", base=base) == "deleted"
    assert found(path.upper(), "modified", base=(*BASE, path.upper())) == "modified"


@pytest.mark.parametrize("path", FREE)
def test_ordinary_files_are_free(path: str) -> None:
    for edit in ("modified", "deleted", "added"):
        assert found(path, edit, base=(*BASE, path)) == ""


@pytest.mark.parametrize(
    "path",
    [
        "pytest.ini", ".pytest.ini", "pytest.toml", "tox.ini", "setup.cfg", "sub/pytest.ini", "tests/new/pytest.ini",
        "GNUmakefile", "src/Makefile", "package.json", "sub/package.json", "jest.config.js",
        "CONFTEST.PY", "conftest.py", "src/conftest.py", "new/deep/conftest.py", "new/sitecustomize.py", "new/x.pth",
        ".npmrc", "new/.npmrc", ".cargo/config.toml", "new/.cargo/config", ".goalrun/flows/x.toml", "goalrun.toml",
    ],
)  # fmt: skip
def test_harness_files_must_stay_absent_where_they_would_act_on_the_base(path: str) -> None:
    assert found(path) == "added"


@pytest.mark.parametrize(
    "path", ["new/package.json", "new/pyproject.toml", "new/deep/Makefile", "packages/app/tsconfig.json", "new/go.mod"]
)
def test_a_new_folder_may_have_a_manifest_of_its_own(path: str) -> None:
    assert found(path) == ""


@pytest.mark.parametrize(
    "path",
    [
        "tests/helpers/__init__.py", "tests/helpers/deep/x.py", "tests/test_shop/__init__.py",
        "pytest.py", "json.py", "src/json.py", "lib/os.py", "unittest/__init__.py", "_pytest/config.py", "coverage.py",
        "json/__init__.py", "tests/helpers.pyc", "tests/x.so", "tests/..so",
        "tests/data.py",
    ],
)  # fmt: skip
def test_additions_that_would_be_imported_in_the_place_of_something_else_are_shadows(path: str) -> None:
    assert found(path) == "shadow"


@pytest.mark.parametrize(
    "path", ["src/pkg/json.py", "new/json.py", "shop/__init__.py", "src/app/__init__.py", "json.md"]
)
def test_product_modules_that_shadow_nothing_of_the_tests_are_free(path: str) -> None:
    assert found(path) == ""


@pytest.mark.parametrize(
    "path",
    ["tests/test_new.py", "tests/data/b.json", "src/test_new.py", "src/new.test.ts", "new/tests/x.py", "x_test.go"],
)
def test_new_tests_are_extra_and_no_tampering(path: str) -> None:
    assert found(path) == "extra"
    assert Finding(path=path, kind="extra").tamper is None


def test_any_other_finding_is_tampering() -> None:
    assert Finding(path="p", kind="shadow").tamper == Tamper(path="p", kind="shadow")


def test_protect_adds_to_the_set_and_may_change_takes_out_of_it() -> None:
    assert found("conf/settings.ini", "modified", protect=("conf/",)) == "modified"
    assert found("conf/new.ini", protect=("conf/",)) == "added"
    assert found("conf/settings.ini", "deleted", protect=("*.ini",)) == "deleted"
    assert found("tests/data/a.json", "modified", may_change=("tests/data/**",)) == ""
    assert found("tests/test_shop.py", "modified", may_change=("tests/data/**",)) == "modified"
    assert found("pytest.ini", may_change=("pytest.ini",)) == ""
    assert found("conf/settings.ini", "modified", protect=("conf/",), may_change=("conf/settings.ini",)) == ""


@pytest.mark.parametrize(
    "command",
    [
        "bash check.sh",
        "./check.sh --all",
        "true && ./check.sh",
        'sh "check.sh"',
        "check.sh::case",
        "x <check.sh",
        "(check.sh)",
    ],
)
def test_a_file_that_a_check_names_is_part_of_the_check(command: str) -> None:
    assert found("check.sh", "modified", checks=(command,)) == "modified"
    assert found("check.sh", "deleted", checks=("make", command)) == "deleted"
    assert found("sub/check.sh", "modified", checks=(command,)) == ""


def test_a_check_names_files_from_the_folder_that_it_starts_in() -> None:
    assert found("sub/check.sh", "modified", checks=("bash check.sh",), subfolder="sub") == "modified"
    assert found("check.sh", "modified", checks=("bash check.sh",), subfolder="sub") == ""
    assert found("check.sh", "modified", checks=("bash ../check.sh",), subfolder="sub") == "modified"


def test_a_file_that_a_check_names_may_be_made_or_freed() -> None:
    assert found("main.py", checks=("python main.py",)) == ""
    assert found("tests/test_new.py", checks=("pytest tests/test_new.py",)) == ""
    assert found("check.sh", "modified", checks=("bash check.sh",), may_change=("check.sh",)) == ""


def test_a_check_names_files_from_the_folders_that_it_goes_to() -> None:
    assert found("sub/check.sh", "modified", checks=("cd sub && bash check.sh",)) == "modified"
    assert found("sub/check.sh", "modified", checks=("(cd ./sub; sh check.sh); true",)) == "modified"
    assert found("sub/check.sh", "modified", checks=("cd src && cd ../sub && sh check.sh",)) == "modified"


def test_a_file_of_arguments_is_named_after_an_at_sign() -> None:
    assert found("conf/settings.ini", "modified", checks=("pytest @conf/settings.ini",)) == "modified"


@pytest.mark.parametrize("edit", ["added", "modified", "deleted"])
@pytest.mark.parametrize(
    "path", [".coverage", "sub/.coverage.host.1", ".nyc_output/a.json", ".mypy_cache/3.12/x.json", ".tox/py/bin/python",
             "target/debug/.fingerprint/a/b", "build/a.o", "tsconfig.tsbuildinfo"]
)  # fmt: skip
def test_what_tools_keep_for_their_next_run_is_left_out_and_is_no_tampering(path: str, edit: Edit) -> None:
    assert found(path, edit) == "left_out"
    assert found(path, edit, may_change=(path,)) == ""
    assert Finding(path=path, kind="left_out").tamper is None


def test_what_a_check_reads_if_it_is_there_may_not_appear_and_what_it_makes_is_left_out() -> None:
    mentions = Mentions(absent=frozenset({".env", "rules/*.inc"}), made=frozenset({"build/app"}))
    protection = Protection(spec=VerificationSpec(), checks=(), base_files=frozenset(BASE), mentions=mentions)
    kinds = {}
    for path in (".env", "rules/b.inc", "rules/b.txt", "build/app", "build/other"):
        finding = protection.finding(Change(path=path, before=False, after=True))
        kinds[path] = finding.kind if finding else ""
    assert kinds == {
        ".env": "shadow", "rules/b.inc": "shadow", "rules/b.txt": "", "build/app": "left_out", "build/other": ""
    }  # fmt: skip


PARTS = st.sampled_from([
    ".config", "tool.py", "x.so", ".so", "..", "...", ".", "tests", "a.b.py", "\n", " ", "é", "\udcff", "pytest", ".py",
    "__pycache__", "src", "[", "*", "lib", ".tox", "conftest.py"
])  # fmt: skip
PATHS = st.lists(st.one_of(PARTS, st.text(min_size=1, max_size=6)), min_size=1, max_size=4).map("/".join)


@given(PATHS, st.booleans(), st.booleans(), st.lists(PATHS, max_size=3))
def test_no_path_is_too_odd_to_be_judged(path: str, before: bool, after: bool, base: list[str]) -> None:  # noqa: FBT001
    protection = Protection(spec=VerificationSpec(), checks=(path,), base_files=frozenset({*BASE, *base}))
    change = Change(path=path, before=before, after=after)
    finding = protection.finding(change)
    assert finding is None or finding.path == path
    assert protection.escapes([change]) in ([], [change])


def escaped(*paths: str, before: bool = False, base: tuple[str, ...] = BASE, **values: object) -> list[str]:
    protection = Protection.model_validate(
        {"spec": VerificationSpec(), "checks": (), "base_files": frozenset(base), **values}
    )
    changes = [Change(path=path, before=before, after=True) for path in paths]
    return [change.path for change in protection.escapes(changes)]


def test_what_checks_write_is_an_escape_where_it_would_be_loaded_or_was_there_before() -> None:
    assert escaped("tests/test_shop.py", "pyproject.toml", "app.log", before=True) == [
        "tests/test_shop.py",
        "pyproject.toml",
    ]
    assert escaped("conftest.py", "json.py", "src/pkg/x.pth", "bin/python") == [
        "conftest.py", "json.py", "src/pkg/x.pth", "bin/python"
    ]  # fmt: skip
    assert escaped("tests/test_new.py", "package-lock.json", "setup.cfg", "out.txt", ".coverage") == []
    assert escaped("Cargo.lock", ".coverage", before=True) == []


def test_an_environment_that_a_check_makes_is_no_escape() -> None:
    inside = ("env/bin/python", "env/lib/python3/site-packages/a.pth", "env/lib/python3/site-packages/conftest.py")
    assert escaped(*inside) == [*inside]
    assert escaped("env/pyvenv.cfg", *inside) == []
    assert escaped(".tox/py/bin/python", ".nox/tests/lib/x.pth") == []


def test_a_folder_of_the_base_does_not_become_such_an_environment() -> None:
    assert escaped("pyvenv.cfg", "conftest.py", "bin/python") == ["conftest.py", "bin/python"]
    assert escaped("tests/pyvenv.cfg", "tests/conftest.py") == ["tests/conftest.py"]
    # What the worker delivered is no new file.
    assert escaped("env/bin/python", before=False) == ["env/bin/python"]


def test_what_make_makes_is_no_escape() -> None:
    mentions = Mentions(absent=frozenset({"config.local"}), made=frozenset({"build/app"}))
    assert escaped("build/app", "config.local", mentions=mentions) == ["config.local"]


def test_files_that_only_a_check_s_command_names_are_told_apart() -> None:
    checks = ("bash check.sh", "pytest tests/test_shop.py", "test -f README.md")
    protection = Protection(spec=VerificationSpec(), checks=checks, base_files=frozenset(BASE))
    assert protection.only_named == ("check.sh",)


@pytest.mark.parametrize(
    ("glob", "inside", "outside"),
    [
        ("*.txt", ["a.txt", "x/y/a.txt", "A.TXT"], ["a.txt.bak", "atxt"]),
        ("data", ["data", "x/data", "data/deep/a"], ["database", "x/mydata"]),
        ("data/", ["data/a", "x/data/a"], ["database/a"]),
        ("/data", ["data", "data/a"], ["x/data"]),
        ("a/*.c", ["a/x.c"], ["a/b/x.c", "z/a/x.c"]),
        ("a/**", ["a/x", "a/b/c"], ["a", "b/a/x"]),
        ("**/x", ["x", "a/x", "a/b/x", "x/in"], ["ax"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "a/bz"]),
        ("./a/b", ["a/b"], ["x/a/b"]),
        ("?.c", ["a.c"], ["ab.c", ".c"]),
        ("[ab].c", ["a.c", "x/B.c"], ["c.c"]),
        ("x[!a]y", ["xby"], ["xay", "x/y"]),
        ("x[[&]y", ["x[y", "x&y"], ["xy"]),
        ("[+--]", ["+", ",", "-"], ["."]),
        ("a+b(c).$", ["a+b(c).$"], ["aab(c).$"]),
        ("[", ["["], ["a"]),
    ],
)
def test_globs_mean_what_they_mean_to_git_without_regard_to_case(
    glob: str, inside: list[str], outside: list[str]
) -> None:
    assert [path for path in inside if not matches(path, (glob,))] == []
    assert [path for path in outside if matches(path, (glob,))] == []


def test_a_glob_that_cannot_be_used_is_known() -> None:
    assert bad_glob("[z-a]")
    assert not bad_glob("a/**/[ab]*.py")


@given(st.text(min_size=1, max_size=20), st.text("ab/.*[]!-", max_size=12))
def test_a_literal_path_matches_itself_and_no_glob_breaks(path: str, glob: str) -> None:
    literal = path.strip("/.")
    if literal and not set(literal) & set("*?["):
        assert matches(literal, (f"/{literal}",))
        assert matches(f"{literal}/below", (f"/{literal}/",))
    if not bad_glob(glob):
        matches(path, (glob,))


def test_a_test_root_is_a_folder_of_that_name_at_any_depth() -> None:
    assert in_test_root("a/Tests/x")
    assert not in_test_root("tests")
    assert not in_test_root("mytests/x")


PYPROJECT = '[project]\nname = "a"\n[build-system]\nrequires = []\n[tool.pytest.ini_options]\naddopts = "-q"\n'
PACKAGE = {"name": "a", "scripts": {"test": "jest"}, "dependencies": {"x": "1"}, "jest": {"bail": True}}
CARGO = '[package]\nname = "a"\nversion = "1"\n[dependencies]\nx = "1"\n[[test]]\nname = "t"\n'


@pytest.mark.parametrize(
    ("path", "base", "now", "changed"),
    [
        ("pyproject.toml", PYPROJECT, PYPROJECT.replace('"a"', '"b"').replace("[]", '["x"]'), False),
        ("pyproject.toml", PYPROJECT, PYPROJECT + "[tool.uv]\ndev-dependencies = []\n", False),
        ("pyproject.toml", PYPROJECT, PYPROJECT.replace("-q", "-k nothing"), True),
        ("pyproject.toml", PYPROJECT, PYPROJECT + "[tool.coverage.run]\nomit = []\n", True),
        ("sub/PyProject.toml", PYPROJECT, PYPROJECT.replace("-q", ""), True),
        ("pyproject.toml", PYPROJECT, "[project", True),
        ("pyproject.toml", PYPROJECT, "tool = 1\n", True),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "dependencies": {"y": "2"}}), False),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "scripts": {"test": "true"}}), True),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "jest": {}}), True),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "type": "module"}), True),
        ("package.json", json.dumps(PACKAGE), "[]", True),
        ("package.json", json.dumps(PACKAGE), "[" * 100_000, True),
        ("package.json", json.dumps(PACKAGE), "\udcff", True),
        ("Cargo.toml", CARGO, CARGO.replace('x = "1"', 'x = "2"').replace('version = "1"', 'version = "2"'), False),
        ("Cargo.toml", CARGO, CARGO + "harness = false\n", True),
        ("Cargo.toml", CARGO, CARGO.replace("[dep", "autotests = false\n[dep"), True),
        ("Cargo.toml", CARGO, CARGO.replace("[dep", 'build = "evil.rs"\n[dep'), True),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "dependencies": {"x": "file:fake"}}), True),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "devDependencies": {"x": "link:../x"}}), True),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "dependencies": {"x": "npm:y@1"}}), True),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "dependencies": {"x": "me/fork"}}), True),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "dependencies": {"x": "~1.2 || ^3"}}), False),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "bin": "./cli.js"}), False),
        ("package.json", json.dumps(PACKAGE), json.dumps({**PACKAGE, "homepage": "https://a.example"}), False),
        ("pyproject.toml", PYPROJECT, PYPROJECT.replace('"a"', '"a"\ndependencies = ["x>=2"]'), False),
        ("pyproject.toml", PYPROJECT, PYPROJECT.replace('"a"', '"a"\ndependencies = ["x @ file:///tmp/x"]'), True),
        ("pyproject.toml", PYPROJECT, PYPROJECT + "[dependency-groups]\nt = ['x @ git+https://a.example/x']\n", True),
        ("pyproject.toml", PYPROJECT, PYPROJECT + "[tool.uv.sources]\npytest = {path = 'fake'}\n", True),
        ("pyproject.toml", PYPROJECT, PYPROJECT + "[tool.poetry.dependencies]\npytest = {path = 'fake'}\n", True),
        ("pyproject.toml", PYPROJECT, PYPROJECT + "[project.urls]\nHome = 'https://a.example'\n", False),
        ("Cargo.toml", CARGO, CARGO.replace('x = "1"', 'x = {version = "2", features = ["a"]}'), False),
        ("Cargo.toml", CARGO, CARGO.replace('x = "1"', 'x = {path = "fake"}'), True),
        ("Cargo.toml", CARGO, CARGO + '[dev-dependencies]\ny = {git = "https://a.example/y"}\n', True),
        ("Cargo.toml", CARGO, CARGO + '[dev-dependencies]\ny = {version = "1", package = "z"}\n', True),
        ("Cargo.toml", CARGO, CARGO + '[profile.test]\nopt-level = 3\n', True),
    ],
)  # fmt: skip
def test_a_mixed_manifest_may_change_in_its_product_tables_only(
    path: str, base: str, now: str, *, changed: bool
) -> None:
    assert is_mixed_manifest(path)
    assert harness_changed(path, base.encode(), now.encode("utf-8", "surrogateescape")) is changed


def test_a_file_that_is_no_mixed_manifest_has_no_harness_of_its_own() -> None:
    assert not is_mixed_manifest("tests/conftest.py")
    assert not harness_changed("conftest.py", b"a", b"b")

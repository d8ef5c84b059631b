"""What checks are made of beside what they name, from a base that is a dictionary."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalrun.core.mentions import Mentions, mentioned


def of(check: str, base: Mapping[str, str], subfolder: str = "") -> Mentions:
    return mentioned((check,), subfolder, frozenset(base), base.get)


MAKE = "Makefile"


@pytest.mark.parametrize(
    ("check", "base", "files", "absent"),
    [
        ("make test", {MAKE: "include a\ntest:\n", "a": "include b\n", "b": ""}, {MAKE, "a", "b"}, {"test"}),
        ("make", {MAKE: "-include local\n"}, {MAKE}, {"local"}),
        ("make", {MAKE: "include rules/*.x\n", "rules/a.x": "", "rules/b": ""}, {MAKE, "rules/a.x"}, {"rules/*.x"}),
        ("make", {MAKE: "D = a\nE := $(D)/b\ninclude ${E}/c\n", "a/b/c": ""}, {MAKE, "a/b/c"}, set()),
        ("make D=a", {MAKE: "D = b\ninclude $(D)/c\n", "a/c": "", "b/c": ""}, {MAKE, "a/c"}, set()),
        ("make", {MAKE: "D = a\nD += b\nD ?= c\ninclude $(D)\n", "a": "", "b": "", "c": ""}, {MAKE, "a", "b"}, set()),
        ("make", {MAKE: "include $(wildcard *.x)\n", "a.x": ""}, {MAKE, "a.x"}, {"*.x"}),
        ("make", {MAKE: "include $(shell ls)\n"}, {MAKE}, set()),
        ("make", {MAKE: "include \\\n  a\n", "a": ""}, {MAKE, "a"}, set()),
        ("make -C sub", {"sub/Makefile": "include a\n", "sub/a": "", "a": ""}, {"sub/Makefile", "sub/a"}, set()),
        ("cd sub && make", {"sub/makefile": "include a\n", "sub/a": ""}, {"sub/makefile", "sub/a"}, set()),
        ("make -sf x/y t", {"x/y": "include a\nt:\n", "a": "", MAKE: "include b"}, {"x/y", "a"}, {"t"}),
        ("gmake --file=x --directory=sub", {"sub/x": "include a\n", "sub/a": ""}, {"sub/x", "sub/a"}, set()),
        (
            "make",
            {MAKE: "all:\n\t@$(MAKE) -C sub all\n", "sub/Makefile": "all:\n\tsh x.sh\n", "sub/x.sh": ""},
            {MAKE, "sub/Makefile", "sub/x.sh"},
            {"all", "sub/all"},
        ),
        (
            "make",
            {MAKE: "all:\n\tcd sub && sh x.sh\n", "sub/x.sh": "", "x.sh": ""},
            {MAKE, "sub/x.sh", "x.sh"},
            {"all"},
        ),
        ("make", {MAKE: "all:\n\tmake all\n"}, {MAKE}, {"all"}),
        ("make", {MAKE: "S = sh\nall:\n\t$(S) x.sh\n", "x.sh": ""}, {MAKE, "x.sh"}, {"all"}),
        ("make b", {MAKE: "a:\n\tsh a.sh\nb:\n\tsh b.sh\n", "a.sh": "", "b.sh": ""}, {MAKE, "b.sh"}, {"b"}),
        ("cmake -B b", {MAKE: "include a\n", "a": ""}, set(), set()),
        ("make", {MAKE: "A = $(A)$(A)\ninclude $(A)\n"}, {MAKE}, set()),
    ],
)
def test_of_make(check: str, base: dict[str, str], files: set[str], absent: set[str]) -> None:
    found = of(check, base)
    assert found.files == files
    assert found.absent | found.made == absent


def test_targets_are_made_and_are_no_part_of_the_checks() -> None:
    makefile = ".PHONY: all\nall: app doc\napp: app.c\n\tcc app.c\ndoc: x\n\tgen\n"
    found = of("make", {MAKE: makefile, "app.c": "", "doc": ""})
    assert found == Mentions(files=frozenset({MAKE}), made=frozenset({"app"}))


def package(**scripts: str) -> str:
    return json.dumps({"scripts": scripts})


JS = {"a.js": "", "b.cjs": "", "c/index.js": "", "d.js": "", "sh/e.sh": ""}


@pytest.mark.parametrize(
    ("check", "scripts", "files"),
    [
        ("npm test", {"test": "node a.js", "other": "node d.js"}, {"a.js"}),
        ("npm t", {"test": "node a.js"}, {"a.js"}),
        ("npm run x", {"test": "node a.js", "x": "node b"}, {"b.cjs"}),
        ("yarn x --flag", {"x": "node --enable-source-maps ./c"}, {"c/index.js"}),
        (
            "npm test",
            {"test": "npm run u", "preu": "bash sh/e.sh", "u": "node d", "postu": "node a"},
            {"sh/e.sh", "d.js", "a.js"},
        ),
        ("npm test", {"test": "run-s u:*", "u:1": "node a", "u:2": "node d"}, {"a.js", "d.js"}),
        ("npm test", {"test": "npm test"}, set()),
        ("npm test", {"test": "eslint a.js && node d.js"}, {"d.js"}),
        ("npm ci && npm test", {"prepare": "node a.js", "test": "jest"}, {"a.js"}),
        ("node a", {}, {"a.js"}),
        ("true", {"test": "node a.js"}, set()),
    ],
)
def test_of_the_scripts_of_a_package(check: str, scripts: dict[str, str], files: set[str]) -> None:
    assert of(check, {**JS, "package.json": package(**scripts)}).files - {"package.json"} == files


def test_packages_in_other_folders_count_where_a_check_can_mean_them() -> None:
    base = {"package.json": package(x="node a.js"), "a.js": "", "p/package.json": package(x="node b.js"), "p/b.js": ""}
    assert "p/b.js" not in of("npm run x", base).files
    for check in ("npm --prefix p run x", "cd p && npm run x", "npm run x --workspaces", "pnpm -r x"):
        assert "p/b.js" in of(check, base).files
    assert "p/b.js" in of("npm run x", base, "p").files
    assert "a.js" in of("npm run x", base, "q/deep").files


def test_a_name_that_node_completes_may_not_be_taken_before_the_file_that_it_means() -> None:
    found = of("node scripts/check", {"scripts/check/index.js": ""})
    assert found.files == {"scripts/check/index.js"}
    assert {"scripts/check", "scripts/check.js"} <= found.absent
    assert of("node new/check", {}) == Mentions()


CODE = {"s/a.js": "", "s/b.js": "", "s/c.ts": "", "lib.js": "", "jest/index.js": ""}


@pytest.mark.parametrize(
    ("path", "text", "files"),
    [
        ("jest.config.js", "module.exports = { setupFilesAfterEnv: ['<rootDir>/s/a.js'] };", {"s/a.js"}),
        (
            "jest.config.ts",
            "export default {\n  reporters: [\n    ['./s/a', {x: [1]}],\n    './s/b.js',\n  ],\n  y: './lib.js'}",
            {"s/a.js", "s/b.js"},
        ),
        (
            "jest.config.json",
            '{"transform": {"^.+\\\\.[jt]sx?$": "./s/a.js"}, "moduleNameMapper": {"x": "./lib.js"}}',
            {"s/a.js"},
        ),
        (
            "jest.config.js",
            "module.exports = { rootDir: 's', globalSetup: './a.js', resolver: './b' }",
            {"s/a.js", "s/b.js"},
        ),
        ("jest.config.js", "x = { testEnvironment: 'jest' }", set()),
        (
            "vite.config.ts",
            "export default { resolve: { alias: { x: './lib.js' } }, test: { setupFiles: './s/c' } }",
            {"s/c.ts"},
        ),
        (
            "vitest.config.mjs",
            "export default { test: {\n environment: './s/a.js',\n globalSetup: [`./s/b.js`] } }",
            {"s/a.js", "s/b.js"},
        ),
        (".mocharc.yml", "require:\n  - ./s/a.js\n  - s/b.js\nspec: lib.js\n", {"s/a.js", "s/b.js"}),
        (".mocharc.yaml", "ui: bdd\nfile: s/a.js\n", {"s/a.js"}),
        (".mocharc.json", '{"import": "./s/a.js", "spec": ["lib.js"]}', {"s/a.js"}),
        (".mocharc.cjs", "const a = require('./lib.js');\nmodule.exports = { reporter: './s/a' };", {"s/a.js"}),
        (
            "package.json",
            '{"jest": {"setupFiles": ["./s/a"]}, "mocha": {"require": "./s/b"}, "exports": {"require": "./lib.js"}}',
            {"s/a.js", "s/b.js"},
        ),
        ("package.json", '{"jest": []}', set()),
        ("jest.config.js", "setupFiles: [" * 3000, set()),
    ],
)
def test_of_configurations_of_javascript(path: str, text: str, files: set[str]) -> None:
    assert of("npm test", {**CODE, path: text}).files - {path} == files


def test_a_configuration_that_is_named_is_followed() -> None:
    base = {
        **CODE,
        "ci/jest.json": '{"rootDir": "..", "preset": "./more.js", "setupFiles": ["./s/a"]}',
        "ci/more.js": "x = { runner: '../s/b.js' }",
    }
    files = {"ci/jest.json", "ci/more.js", "s/a.js", "s/b.js"}
    assert of("npx jest --config ci/jest.json", base).files == files
    scripts = {"package.json": package(test="jest --config=ci/jest.json")}
    assert of("npm test", {**base, **scripts}).files == files | {"package.json"}


RUN = {"run/a.sh": "", "run/b.py": "", "calc.py": ""}


@pytest.mark.parametrize(
    ("check", "path", "text", "files"),
    [
        (
            "tox",
            "tox.ini",
            "[testenv]\ncommands =\n  bash run/a.sh\n  python {toxinidir}/run/b.py\n  mypy calc.py\n",
            set(RUN),
        ),
        ("tox -q", "tox.ini", "[flake8]\nignore = calc.py\n[testenv:py]\ncommands = - bash run/a.sh\n", {"run/a.sh"}),
        ("tox", "tox.toml", '[env_run_base]\ncommands = [["bash", "run/a.sh"], ["mypy", "x"]]\n', {"run/a.sh"}),
        (
            "tox",
            "pyproject.toml",
            '[project]\nreadme = "calc.py"\n[tool.tox.env.x]\ncommands = [\n  ["bash", "run/a.sh"],\n]\n',
            {"run/a.sh"},
        ),
        ("python -m tox", "setup.cfg", "[metadata]\nx = calc.py\n[testenv]\ncommands = bash run/a.sh\n", {"run/a.sh"}),
        (
            "nox -R",
            "noxfile.py",
            'session.run("mypy", "calc.py")\nsession.run(\n  "bash",\n  "run/a.sh")\n',
            {"run/a.sh"},
        ),
        ("pytest", "tox.ini", "[testenv]\ncommands = bash run/a.sh\n", set()),
    ],
)
def test_of_tox_and_nox(check: str, path: str, text: str, files: set[str]) -> None:
    assert of(check, {**RUN, path: text}).files == files - {"calc.py"}


@pytest.mark.parametrize(
    ("check", "absent"),
    [
        ("set -a; . ./.env; pytest", {".env"}),
        ("if [ -f .env ]; then . ./.env; fi; pytest", {".env"}),
        ("test -f x/vars && source x/vars; pytest", {"x/vars"}),
        ("node --env-file-if-exists=.env a.mjs", {".env"}),
        ("cp .env.example .env && . ./.env && pytest", set()),
        ("make-vars > .env; . ./.env; pytest", set()),
        ("ruff check . tests", set()),
        ("test -e notes.txt", set()),
        ("app > out.txt && diff out.txt wanted.txt", set()),
    ],
)
def test_what_a_check_sources_may_not_appear(check: str, absent: set[str]) -> None:
    assert of(check, {}).absent == absent


def test_of_plugins_of_pytest() -> None:
    base = {
        "extra.py": "",
        "more/__init__.py": "",
        "ci/arguments": "-p more\n",
        "conftest.py": "pytest_plugins = ['extra']\n",
    }
    found = of("pytest @ci/arguments", base)
    assert found.files == {"extra.py", "more/__init__.py"}
    assert found.absent >= {"more.py", "extra/__init__.py"}


def test_programs_that_run_others_are_followed_into_one_another() -> None:
    base = {
        MAKE: "test:\n\tnpm run check\n",
        "package.json": package(check="tox && make -C c"),
        "c/Makefile": "a:\n\tsh c.sh\n",
        "c/c.sh": "",
        "tox.ini": "[testenv]\ncommands = bash run/a.sh\n",
        **RUN,
    }
    assert of("make test", base).files >= {"c/c.sh", "run/a.sh"}


@given(st.text("make npmrun-Cf $(){}'\"\n\t:=./*[]&|;cdnode", max_size=60), st.text(max_size=40))
def test_no_text_is_too_odd(line: str, other: str) -> None:
    base = {
        MAKE: line,
        "package.json": f'{{"scripts": {{"test": {json.dumps(line)}}}}}',
        "tox.ini": line,
        "noxfile.py": other,
        "jest.config.js": line,
        ".mocharc.yml": other,
        "conftest.py": other,
    }
    for check in (line, f"make {other}", "npm test", "tox; nox", other):
        assert of(check, base).files <= set(base)

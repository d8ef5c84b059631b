"""Dependencies inside the workspace: frozen at start, so that what the worker does to them does not count."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import Program, git, repository, write

LEVELS = ["auto", "process"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a virtual environment that holds a library and a program."""
    top = repository(tmp_path / "project", {"app.py": "ok = False\n", ".gitignore": ".venv/\nnode_modules/\n"})
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=top, check=True)
    (site,) = (top / ".venv").glob("lib/python*/site-packages")
    write(site, {"thirdparty.py": "value = 1\n"})
    tool = top / ".venv/bin/mytool"
    tool.write_text(f"#!{top}/.venv/bin/python\nimport sys, thirdparty\nsys.exit(thirdparty.value != 1)\n")
    tool.chmod(0o755)
    return top


def activated(program: Program, project: Path) -> None:
    program.environment = {
        "VIRTUAL_ENV": str(project / ".venv"),
        "PATH": f"{project / '.venv/bin'}:{os.environ['PATH']}",
    }


@pytest.mark.parametrize("level", LEVELS)
def test_an_activated_environment_in_the_workspace_is_there_for_the_checks(
    program: Program, project: Path, level: str
) -> None:
    activated(program, project)
    check = "mytool && python -c 'import app, thirdparty; assert app.ok'"
    done = program.start("--json", "--sandbox", level, worker="echo ok = True > app.py", check=check)
    assert (done.code, done.json["turns"]) == (0, 1), done.err
    assert "checks get .venv as it is now" in done.err
    assert git(project, "status", "--porcelain") == " M app.py\n"


@pytest.mark.parametrize("level", LEVELS)
def test_what_the_worker_does_to_the_environment_does_not_count(program: Program, project: Path, level: str) -> None:
    activated(program, project)
    site = next((project / ".venv").glob("lib/python*/site-packages"))
    cheat = (
        f"echo 'import sys; sys.exit(0)' > {site}/sitecustomize.py; echo 'value = 2' > {site}/thirdparty.py; "
        "printf '#!/bin/sh\\nexit 0\\n' > .venv/bin/python.new; chmod +x .venv/bin/python.new; "
        "rm .venv/bin/python; mv .venv/bin/python.new .venv/bin/python; cp .venv/bin/python .venv/bin/mytool"
    )
    check = "mytool && python -c 'import app, thirdparty; assert app.ok and thirdparty.value == 1'"
    done = program.start("--json", "--sandbox", level, "--max-turns", "1", worker=cheat, check=check)
    assert done.code == 3
    assert done.json["turn_records"][0]["verification"]["checks"][0]["outcome"] == "fail"
    honest = "echo ok = True > app.py"
    goal = done.json["id"]
    (project / "app.py").write_text("ok = True\n")
    resumed = program.run("resume", goal, "--max-turns", "+1", "--json")
    assert resumed.code == 0, honest


@pytest.mark.parametrize("level", LEVELS)
def test_node_modules_are_there_for_the_checks(program: Program, project: Path, level: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    write(project, {"node_modules/left/index.js": "module.exports = 42\n"})
    check = "node -e \"if (require('left') !== 42 || !require('fs').existsSync('done.txt')) process.exit(1)\""
    worker = "echo 'module.exports = 0' > node_modules/left/index.js; touch done.txt"
    assert program.start("--sandbox", level, worker=worker, check=check).code == 0


@pytest.mark.parametrize("level", LEVELS)
def test_packages_of_node_find_one_another(program: Program, project: Path, level: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    left = {"node_modules/left/index.js": "module.exports = require('right')\n"}
    write(project, {**left, "node_modules/right/index.js": "module.exports = 42\n"})
    check = "node -e \"require('left')\" && test -e done.txt"
    assert program.start("--sandbox", level, worker="touch done.txt", check=check).code == 0


@pytest.mark.parametrize("level", LEVELS)
def test_every_check_gets_them(program: Program, project: Path, level: str) -> None:
    write(project, {"node_modules/left.js": "left\n"})
    check = "grep -q left node_modules/left.js"
    arguments = ("--sandbox", level, "-c", f"{check} && test -e done.txt")
    assert program.start(*arguments, worker="touch done.txt", check=check).code == 0


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("check", [".venv/bin/mytool", "source .venv/bin/activate && mytool", ".venv/bin/also"])
def test_a_program_that_a_check_names_by_its_path_is_the_frozen_one(
    program: Program, project: Path, level: str, check: str
) -> None:
    """Its first line names the workspace: what the worker does there must not matter."""
    site = next((project / ".venv").glob("lib/python*/site-packages"))
    (project / ".venv/bin/also").symlink_to("mytool")
    # As pip writes it where the path is too long for the kernel.
    start = f"#!/bin/sh\n'''exec' \"{project}/.venv/bin/python\" \"$0\" \"$@\"\n' '''\n"
    (project / ".venv/bin/long").write_text(start + "import sys, thirdparty\nsys.exit(thirdparty.value != 1)\n")
    (project / ".venv/bin/long").chmod(0o755)
    cheat = f"echo 'value = 2' > {site}/thirdparty.py; touch done.txt"
    done = program.start("--sandbox", level, worker=cheat, check=f"{check} && .venv/bin/long && test -e done.txt")
    assert done.code == 0, done.err


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("way", ["a file of it", "a link"])
def test_what_a_snapshot_has_in_the_place_of_a_dependency_is_not_used(
    program: Program, project: Path, level: str, way: str
) -> None:
    activated(program, project)
    (project / ".venv/bin/mytool").write_text("#!/bin/sh\nexit 1\n")
    fake = "mkdir -p mine/bin; printf '#!/bin/sh\\nexit 0\\n' > mine/bin/mytool; chmod +x mine/bin/mytool"
    ways = {
        "a link": "rm -r .venv; ln -s mine .venv",
        "a file of it": "mv mine/bin/mytool .venv/bin/mytool; rm -r mine; "
        "printf '!.venv/\\n.venv/*\\n!.venv/bin/\\n.venv/bin/*\\n!.venv/bin/mytool\\n' > .gitignore",
    }
    arguments = ("--json", "--sandbox", level, "--max-turns", "1")
    done = program.start(*arguments, worker=f"{fake}; {ways[way]}", check="mytool || .venv/bin/mytool")
    assert done.code == 3, done.err
    verification = done.json["turn_records"][0]["verification"]
    assert verification["tampering"][0]["kind"] == "shadow"
    assert verification["checks"][0]["outcome"] == "fail"


def test_named_dependencies_have_to_be_folders_in_the_workspace(program: Program, tmp_path: Path) -> None:
    for name in ("nope", str(tmp_path), "..", "."):
        done = program.start("--deps", name, worker="true", check="false")
        assert done.code == 2
        assert f"--deps {name!r}" in done.err


def test_a_named_dependency_is_frozen(program: Program, project: Path) -> None:
    write(project, {".git/info/exclude": "vendor/\n", "vendor/data.txt": "one\n"})
    worker = "echo two > vendor/data.txt; touch done.txt"
    done = program.start(
        "--deps", "vendor", "--json", worker=worker, check="grep -q one vendor/data.txt; test -e done.txt"
    )
    assert done.code == 0, done.err


def test_an_editable_install_means_the_snapshot_or_is_refused(program: Program, project: Path) -> None:
    """At level process it would import the live workspace: that is an error, and says so."""
    activated(program, project)
    site = next((project / ".venv").glob("lib/python*/site-packages"))
    (site / "editable.pth").write_text(f"{project}/src\n")
    write(project, {"src/mine.py": "where = __file__\n"})
    check = "python -c 'import mine; print(mine.where); import app; assert app.ok'"
    done = program.start("--sandbox", "process", "--json", worker="echo ok = True > app.py", check=check)
    assert (done.code, done.json["state"]) == (11, "error")
    assert "editable install" in done.json["detail"]
    sandboxed = program.start("--json", worker="echo ok = True > app.py", check=check)
    if sandboxed.json["sandbox"] == "bwrap":
        assert sandboxed.code == 0
        goal, output = sandboxed.json["id"], sandboxed.json["turn_records"][0]["verification"]["checks"][0]["output"]
        assert (program.home / "goals" / goal / output).read_text().strip() == f"{project}/src/mine.py"

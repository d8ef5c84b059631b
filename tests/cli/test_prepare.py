"""Dependencies that a command makes: run once on the base, frozen, kept for later goals."""

import base64
import hashlib
import http.server
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from support import PYTHON, Program, finish, git, repository, wait_until, write

from goalrun.adapters.sandbox import probe
from goalrun.adapters.sandbox.bwrap import resolver

pytestmark = pytest.mark.usefixtures("project")

LEVELS = ["auto", "process"]
WORKER = "echo ok = True > app.py"
COPY = "mkdir -p dep && cp requirements.txt dep/data"
OK = f"{PYTHON} -c 'import app; assert app.ok'"
BWRAP = not probe("bwrap")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose dependencies are not installed."""
    files = {"app.py": "ok = False\n", "requirements.txt": "tiny==1.0\n", ".gitignore": ".venv/\nnode_modules/\n"}
    return repository(tmp_path / "project", files)


def kept(program: Program) -> list[Path]:
    """The results that are kept for later goals."""
    return [found.parent for found in program.home.glob("prepared/*/*/index.json")]


def commit(project: Path, name: str, content: bytes | str) -> None:
    """One more file of the base."""
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=more")


def wheel() -> bytes:
    """A wheel with a module and a program."""
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": "import sys\n\ndef main():\n    print('tiny in', sys.prefix)\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntiny-tool = tiny:main\n",
    }
    digests = {
        name: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        for name, text in files.items()
    }
    record = "".join(f"{name},sha256={digests[name]},{len(text)}\n" for name, text in files.items())
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return whole.getvalue()


@pytest.mark.parametrize("level", LEVELS)
def test_a_virtual_environment_that_is_prepared_works_for_the_checks(
    program: Program, project: Path, level: str
) -> None:
    commit(project, "wheels/tiny-1.0-py3-none-any.whl", wheel())
    prepare = f"{PYTHON} -m venv .venv && .venv/bin/pip install -q --no-index --find-links wheels -r requirements.txt"
    check = (
        ".venv/bin/tiny-tool && source .venv/bin/activate && tiny-tool && "
        f"python -c 'import tiny, app; assert app.ok' && {OK}"
    )
    done = program.start("--json", "--sandbox", level, "--prepare", prepare, worker=WORKER, check=check)
    assert (done.code, done.json["turns"]) == (0, 1), done.err
    assert f"preparing: {prepare}" in done.err
    assert "prepared: checks get .venv" in done.err
    assert not (project / ".venv").exists()
    (project / "app.py").write_text("ok = False\n")
    again = program.start("--json", "--sandbox", level, "--prepare", prepare, worker=WORKER, check=check)
    assert (again.code, again.json["turns"]) == (0, 1), again.err
    assert f"prepared from cache: {prepare}" in again.err
    assert "preparing: " not in again.err


def tarball(name: str, script: str) -> bytes:
    """A package of node with a program."""
    whole = BytesIO()
    manifest = json.dumps({"name": name, "version": "1.0.0", "bin": {f"{name}-tool": "tool.js"}})
    tool = f"#!/usr/bin/env node\nrequire('{name}')\n"
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for path, text in {"package.json": manifest, "index.js": script, "tool.js": tool}.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, BytesIO(text.encode()))
    return whole.getvalue()


@pytest.mark.parametrize("level", LEVELS)
def test_node_modules_that_are_prepared_work_for_the_checks(program: Program, project: Path, level: str) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    commit(project, "packs/right.tgz", tarball("right", "module.exports = 42\n"))
    commit(project, "packs/left.tgz", tarball("left", "module.exports = require('right')\n"))
    dependencies = {"left": "file:packs/left.tgz", "right": "file:packs/right.tgz"}
    commit(project, "package.json", json.dumps({"name": "app", "version": "1.0.0", "dependencies": dependencies}))
    # What the user has installed is not what is prepared.
    write(project, {"node_modules/left/index.js": "module.exports = 0\n"})
    prepare = "npm install --offline --no-audit --no-fund --no-package-lock"
    check = f"node_modules/.bin/left-tool && node -e \"if (require('left') !== 42) process.exit(1)\" && {OK}"
    done = program.start("--sandbox", level, "--prepare", prepare, worker=WORKER, check=check)
    assert done.code == 0, done.err


def test_a_command_that_fails_is_no_fault_of_the_worker_and_leaves_nothing(program: Program, project: Path) -> None:
    prepare = "mkdir dep; echo first; echo -e 'it is \\033[31mbroken' >&2; exit 3"
    done = program.start("--json", "--prepare", prepare, worker="touch ran.txt", check=OK)
    assert (done.code, done.json["state"], done.json["turns"]) == (11, "error", 0)
    assert done.json["detail"].startswith("--prepare failed (status 3): first it is broken; ")
    assert not (project / "ran.txt").exists()
    assert kept(program) == []


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_prepared_cannot_be_replaced_by_the_worker(program: Program, level: str) -> None:
    cheat = f"mkdir dep; echo cheat > dep/data; {WORKER}"
    arguments = ("--json", "--sandbox", level, "--max-turns", "1", "--prepare", COPY)
    done = program.start(*arguments, worker=cheat, check=f"grep -q tiny dep/data && {OK}")
    assert done.code == 3, done.err
    verification = done.json["turn_records"][0]["verification"]
    assert verification["tampering"] == [{"path": "dep/data", "kind": "shadow"}]
    assert verification["checks"][0]["outcome"] == "pass"


@pytest.mark.skipif(not BWRAP, reason="only bubblewrap mounts them read-only")
def test_checks_cannot_change_what_is_prepared(program: Program) -> None:
    done = program.start("--prepare", COPY, worker=WORKER, check=f"! touch dep/new && test -s dep/data && {OK}")
    assert done.code == 0, done.err


def test_only_what_the_command_reads_makes_it_run_again(program: Program, project: Path) -> None:
    def told(prepare: str = COPY) -> str:
        done = program.run("verify", "--prepare", prepare, "-c", "test -s dep/data")
        assert done.code == 0, done.err
        return done.err

    assert "preparing: " in told()
    # A removal that was killed half way.
    (kept(program)[0] / "index.json").unlink()
    assert "preparing: " in told()
    commit(project, "app.py", "ok = 1\n")
    assert "prepared from cache: " in told()
    commit(project, "requirements.txt", "tiny==2.0\n")
    assert "preparing: " in told()
    commit(project, "tools/prepare.sh", COPY)
    assert "preparing: " in told("bash tools/prepare.sh")
    assert "prepared from cache: " in told("bash tools/prepare.sh")
    commit(project, "tools/prepare.sh", f"{COPY} # changed")
    assert "preparing: " in told("bash tools/prepare.sh")


def test_few_results_are_kept_and_clean_removes_them(program: Program, project: Path) -> None:
    for version in range(5):
        commit(project, "requirements.txt", f"tiny=={version}\n")
        assert program.run("verify", "--prepare", COPY, "-c", f"grep -q {version} dep/data").code == 0
    assert len(kept(program)) == 3
    assert program.run("clean", "--older-than", "1h", "--json").json["prepared"] == 0
    assert program.run("clean", "--dry-run", "--json").json["prepared"] == 3
    assert len(kept(program)) == 3
    assert program.run("clean").out == "removed 0 achieved goals, kept 0\nremoved 3 cached results of --prepare\n"
    assert kept(program) == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a file on a server of this machine."""
    write(tmp_path, {"served/data": "from the network\n"})
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/data"
        listening.shutdown()


@pytest.mark.parametrize("level", LEVELS)
def test_the_command_has_the_network_and_the_checks_have_not(program: Program, server: str, level: str) -> None:
    fetch = f"{PYTHON} -c 'import urllib.request as u; print(u.urlopen(\"{server}\").read())'"
    offline = f"! {fetch} && " if BWRAP and level == "auto" else ""
    check = f"{offline}grep -q 'from the network' dep/data && {OK}"
    done = program.start(
        "--sandbox", level, "--prepare", f"mkdir dep && {fetch} > dep/data", worker=WORKER, check=check
    )
    assert done.code == 0, done.err


def test_an_interrupted_command_leaves_nothing_and_runs_again(program: Program, tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    prepare = f"{COPY}; touch {started}; until test -e {go}; do sleep 0.05; done"
    check = f"test -s dep/data && {OK}"
    arguments = ("--json", "--sandbox", "process", "--worker-cmd", WORKER, "-c", check, "--prepare", prepare)
    running = program.spawn("start", "prepared", *arguments)
    wait_until(started.exists, "the command starts")
    assert program.run("pause").code == 0
    done = finish(running)
    assert (done.code, done.json["state"]) == (130, "paused"), done.err
    assert kept(program) == []
    go.touch()
    resumed = program.run("resume", "--json")
    assert resumed.code == 0, resumed.err
    assert "preparing: " in resumed.err


def test_two_that_prepare_the_same_at_once_do_not_harm_each_other(program: Program, tmp_path: Path) -> None:
    """Each waits in its command until the other one is there too."""
    prepare = f"{COPY}; touch {tmp_path}/in-$$; until test $(ls {tmp_path}/in-* | wc -l) -ge 2; do sleep 0.05; done"
    arguments = ("verify", "--sandbox", "process", "--prepare", prepare, "-c", "grep -q tiny dep/data")
    both = [program.spawn(*arguments) for _ in range(2)]
    for done in map(finish, both):
        assert done.code == 0, done.err
        assert "preparing: " in done.err
    assert len(kept(program)) == 1
    assert "prepared from cache: " in program.run(*arguments).err


def test_an_editable_install_means_the_snapshot_or_is_refused(program: Program, project: Path) -> None:
    commit(project, "src/mine.py", "import app\nok = app.ok\n")
    prepare = (
        f"{PYTHON} -m venv --without-pip .venv && echo $PWD/src > $(echo .venv/lib/python*/site-packages)/mine.pth"
    )
    check = ".venv/bin/python -c 'import mine; assert mine.ok'"
    done = program.start("--json", "--sandbox", "process", "--prepare", prepare, worker=WORKER, check=check)
    assert (done.code, done.json["state"]) == (11, "error")
    assert "editable install" in done.json["detail"]
    assert kept(program) == []
    if BWRAP:
        assert program.start("--prepare", prepare, worker=WORKER, check=check).code == 0


@pytest.mark.parametrize("level", LEVELS)
def test_the_command_starts_where_checks_start_and_single_files_count(
    program: Program, project: Path, level: str
) -> None:
    commit(project, "part/app.py", "ok = False\n")
    prepare = "echo generated > made.txt; mkdir inner; echo more > inner/data"
    check = f"grep -q generated made.txt && grep -q more inner/data && {OK}"
    # Each check of a worktree, not only its first.
    arguments = ("--sandbox", level, "--prepare", prepare, "-c", check)
    done = program.start(*arguments, worker=WORKER, check=check, cwd=project / "part")
    assert done.code == 0, done.err
    assert "checks get part/inner, part/made.txt" in done.err


def test_the_live_workspace_is_not_prepared(program: Program) -> None:
    done = program.start("--prepare", COPY, "--verify-in", "live", worker=WORKER, check=OK)
    assert done.code == 2
    assert "live workspace has dependencies of its own" in done.err


def test_a_base_that_lacks_a_dependency_gets_a_hint(program: Program) -> None:
    check = f"{PYTHON} -c 'import nowhere_to_be_found'"
    done = program.start("--max-turns", "1", worker="true", check=check)
    (hint,) = [line for line in done.err.splitlines() if line.startswith("  hint: ")]
    assert hint.startswith("  hint: is nowhere_to_be_found a dependency? checks get those of --deps PATH, or of --prep")
    assert "hint: " in program.run("verify", "-c", check).err
    assert "hint: " not in program.start("--max-turns", "1", worker="true", check="false").err


def test_names_of_the_network_are_known_where_the_systems_file_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "link").symlink_to("real")
    assert resolver(tmp_path / "link") == ("--ro-bind", str(tmp_path / "real"), str(tmp_path / "real"))
    assert resolver(tmp_path / "missing") == ()
    assert resolver(Path("/etc/hostname")) == ()

"""Crates for checks of a cargo project: out of the user's cargo home, or fetched by a command; nothing is online."""

import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Program, git, repository, slow, write

from goalrun.adapters.sandbox import probe

LEVELS = ["auto", pytest.param("process", marks=slow)]
WORKER = "sed -i.bak 's/- 1/+ 1/' src/lib.rs && rm src/lib.rs.bak"
CODE = "pub fn three() -> i32 {\n    tiny::two() - 1\n}\n\n"
TEST = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn is_three() {\n        assert_eq!(super::three(), 3);\n    }\n}\n"
TINY = '[package]\nname = "tiny"\nversion = "1.2.3"\nedition = "2021"\ndescription = "small"\nlicense = "MIT"\n'


def cargo(folder: Path, home: Path, *arguments: str) -> None:
    """Run the real cargo with a cargo home of the test's own."""
    environment = {**os.environ, "CARGO_HOME": str(home)}
    subprocess.run(["cargo", *arguments], cwd=folder, env=environment, check=True, capture_output=True)


def works() -> bool:
    """Whether there is a cargo that runs: rustup's stand-in needs a toolchain in the user's home."""
    if shutil.which("cargo") is None:
        return False
    return subprocess.run(["cargo", "--version"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not works(), reason="there is no cargo that works")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's cargo home."""
    folder = tmp_path / "cargo-home"
    folder.mkdir()
    return folder


@pytest.fixture
def tiny(tmp_path: Path, home: Path) -> Path:
    """A crate, as cargo packs it."""
    source = write(tmp_path / "tiny", {"Cargo.toml": TINY, "src/lib.rs": "pub fn two() -> i32 {\n    2\n}\n"})
    cargo(source, home, "package", "--offline", "--no-verify", "--allow-dirty")
    return source / "target/package/tiny-1.2.3.crate"


@pytest.fixture
def registry(tmp_path: Path, tiny: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A registry of one crate on this machine (The Cargo Book, "Registry Index"), and what switches it off."""
    top = tmp_path / "registry"
    entry = {"name": "tiny", "vers": "1.2.3", "deps": [], "features": {}, "yanked": False}
    entry["cksum"] = hashlib.sha256(tiny.read_bytes()).hexdigest()
    write(top, {"index/ti/ny/tiny": json.dumps(entry) + "\n"})
    shutil.copy(tiny, top)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(top))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        write(top, {"index/config.json": json.dumps({"dl": address + "/{crate}-{version}.crate"})})
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def off() -> None:
            server.shutdown()
            server.server_close()

        yield f"sparse+{address}/index/", off
        off()


def replaced(home: Path, address: str) -> None:
    """Have cargo take crates.io's crates from another place, and know secrets."""
    config = f"[source.crates-io]\nreplace-with = 'mine'\n[source.mine]\nregistry = '{address}'\n"
    secret = f"[registries.other]\nindex = '{address}'\ntoken = 'planted-secret'\n[build]\njobs = 1\n"
    write(home, {"config.toml": config + secret, "credentials.toml": "[registry]\ntoken = 'planted-secret'\n"})


def app(folder: Path, dependency: str = 'tiny = "1"') -> Path:
    """A project with a failing test that needs the crate."""
    package = '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n\n[lib]\ndoctest = false\n'
    manifest = f"{package}\n[dependencies]\n{dependency}\n"
    return write(folder, {"Cargo.toml": manifest, "src/lib.rs": CODE + TEST, ".gitignore": "target/\n"})


def committed(folder: Path) -> Path:
    return repository(folder, {})


@pytest.mark.parametrize("level", LEVELS)
def test_crates_of_the_lock_are_there_for_the_checks(
    program: Program, tmp_path: Path, home: Path, registry: tuple[str, Callable[[], None]], level: str
) -> None:
    address, off = registry
    replaced(home, address)
    top = app(tmp_path / "app")
    cargo(top, home, "fetch")
    off()
    # Another crate of the user's, which the lock does not name.
    (name,) = (path.name for path in (home / "registry/cache").iterdir())
    write(home, {f"registry/cache/{name}/other-1.0.0.crate": "", f"registry/index/{name}/.cache/ot/he/other": ""})
    committed(top)
    program.environment = {"CARGO_HOME": str(home)}
    done = program.start("--json", "--sandbox", level, "--require-strong", worker=WORKER, check="cargo test", cwd=top)
    assert (done.code, done.json["turns"]) == (0, 1), done.err
    (frozen,) = program.home.glob("goals/*/crates")
    files = sorted(str(path.relative_to(frozen)).replace(name, "R") for path in frozen.rglob("*") if path.is_file())
    registry_files = ["registry/cache/R/tiny-1.2.3.crate", "registry/index/R/.cache/ti/ny/tiny"]
    assert files == ["config.toml", *registry_files, "registry/index/R/config.json"]
    carried = (frozen / "config.toml").read_text()
    assert "planted-secret" not in carried
    assert "jobs" not in carried


@pytest.mark.parametrize("level", LEVELS)
def test_a_registry_by_name_in_a_subfolder(
    program: Program, tmp_path: Path, home: Path, registry: tuple[str, Callable[[], None]], level: str
) -> None:
    address, off = registry
    write(home, {"config.toml": f"[registries.mine]\nindex = '{address}'\n"})
    top = app(tmp_path / "whole/part", 'tiny = { version = "1", registry = "mine" }')
    cargo(top, home, "fetch")
    off()
    committed(top.parent)
    program.environment = {"CARGO_HOME": str(home)}
    done = program.start("--sandbox", level, "--no-baseline", worker=WORKER, check="cargo test", cwd=top)
    assert done.code == 0, done.err


@pytest.mark.parametrize("level", LEVELS)
def test_a_dependency_on_a_git_repository(program: Program, tmp_path: Path, home: Path, tiny: Path, level: str) -> None:
    source = tiny.parents[2]
    write(source, {".gitignore": "target/\n"})
    repository(source, {})
    top = app(tmp_path / "app", f'tiny = {{ git = "file://{source}" }}')
    cargo(top, home, "fetch")
    shutil.rmtree(source)
    committed(top)
    program.environment = {"CARGO_HOME": str(home)}
    done = program.start("--sandbox", level, "--no-baseline", worker=WORKER, check="cargo test", cwd=top)
    assert done.code == 0, done.err


@pytest.mark.parametrize("level", [pytest.param("auto", marks=slow), "process"])
def test_crates_can_be_fetched_by_the_command(
    program: Program, tmp_path: Path, home: Path, registry: tuple[str, Callable[[], None]], level: str
) -> None:
    """The user's cargo home is empty; a file of the project says where crates come from."""
    address, off = registry
    top = app(tmp_path / "app", 'tiny = { version = "1", registry = "mine" }')
    write(top, {".cargo/config.toml": f"[registries.mine]\nindex = '{address}'\n"})
    cargo(top, tmp_path / "another-home", "fetch")
    committed(top)
    program.environment = {"CARGO_HOME": str(home)}
    arguments = ("verify", "--sandbox", level, "--no-baseline", "-c", "cargo test")
    write(top, {"src/lib.rs": CODE.replace("- 1", "+ 1") + TEST})
    without = program.run(*arguments, cwd=top)
    assert program.run(*arguments, "--prepare", "cargo fetch --locked", cwd=top).code == 0
    off()
    cached = program.run(*arguments, "--prepare", "cargo fetch --locked", cwd=top)
    assert (cached.code, "prepared from cache" in cached.err) == (0, True), cached.err
    if level == "auto" and not probe("bwrap"):
        assert without.code == 12
        assert "hint: is tiny a dependency?" in without.err


@pytest.mark.parametrize("level", LEVELS)
def test_crates_can_be_vendored_by_the_command(
    program: Program, tmp_path: Path, home: Path, registry: tuple[str, Callable[[], None]], level: str
) -> None:
    address, _ = registry
    replaced(home, address)
    top = app(tmp_path / "app")
    cargo(top, home, "generate-lockfile")
    committed(top)
    program.environment = {"CARGO_HOME": str(home)}
    # The user's cargo home has no crate, but says where they come from.
    prepare = "mkdir .cargo && cargo vendor --respect-source-config > .cargo/config.toml"
    done = program.start("--sandbox", level, "--prepare", prepare, worker=WORKER, check="cargo test", cwd=top)
    assert done.code == 0, done.err


@slow
def test_a_crate_that_is_missing_gets_a_hint(
    program: Program, tmp_path: Path, home: Path, registry: tuple[str, Callable[[], None]]
) -> None:
    address, off = registry
    replaced(home, address)
    top = app(tmp_path / "app")
    cargo(top, home, "generate-lockfile")
    off()
    committed(top)
    program.environment = {"CARGO_HOME": str(home)}
    done = program.start("--max-turns", "1", worker=WORKER, check="cargo test", cwd=top)
    assert done.code == 3
    assert "hint: is " in done.err
    assert '"cargo fetch"' in done.err


def test_a_lock_that_names_other_places_is_not_followed(program: Program, tmp_path: Path, home: Path) -> None:
    write(home, {"registry/cache/R/x-1.crate": "x", "registry/cache/secret-1.crate": "secret", "secret": "secret"})
    lock = '[[package]]\nname = "../secret"\nversion = "1"\nsource = "registry+x"\n'
    lock += '[[package]]\nname = "x"\nversion = "1"\nsource = "git+https://x/../.."\n'
    top = repository(tmp_path / "app", {"Cargo.lock": lock + "[[package]]\nname = 7\n", "part/Cargo.lock": "not toml"})
    program.environment = {"CARGO_HOME": str(home)}
    done = program.start(worker="touch done", check="test -e done", cwd=top)
    assert done.code == 0, done.err
    assert not [path for path in program.home.rglob("*") if "secret" in path.name]


def test_a_project_without_crates_gets_none(program: Program, tmp_path: Path, home: Path) -> None:
    write(home, {"registry/cache/R/x-1.crate": "x"})
    top = repository(tmp_path / "app", {"Cargo.lock": 'version = 4\n\n[[package]]\nname = "app"\nversion = "1"\n'})
    program.environment = {"CARGO_HOME": str(home)}
    check = 'test -e done && test ! -e "$HOME/.cargo" && test -z "${CARGO_NET_OFFLINE:-}"'
    assert program.start(worker="touch done", check=check, cwd=top).code == 0
    assert git(top, "status", "--porcelain") == "?? done\n"

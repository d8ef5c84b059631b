"""Crates for checks of a cargo project: those that its lock names, out of the user's cargo home.

Checks have neither that home nor a network. What they need of it is copied before the first turn and lies, fresh, in
the HOME of each verification: there cargo unpacks it, and compares it with the checksums in the lock. Layout of a
cargo home: The Cargo Book, "Cargo Home"; seen with cargo 1.95.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from goalrun.adapters.files import private_folder, remove_tree

CRATES, FETCHED = "crates", "crates-fetched"
"""Small cargo homes in a goal's folder: out of the user's, and of what a command fetched."""
CARRIED = ("source", "registries", "patch")
"""Tables of the user's ``config.toml`` that say where a crate comes from. Others say how to build, or hold secrets."""
NOT_CARRIED = ("token", "secret-key", "credential-provider")
MAX_LOCK_BYTES = 16 << 20
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_VERSION = re.compile(r"[A-Za-z0-9.+-]+")
_REPOSITORY = re.compile(r"[A-Za-z0-9._+-]+")


class Locked(NamedTuple):
    """A package of a lock: of a registry, or, with the name of its repository, of git."""

    name: str
    version: str
    repository: str = ""


def freeze(folder: Path, workspace: Path, subfolder: str, environment: Mapping[str, str]) -> None:
    """Copy what the workspace's lock names into a goal's folder; done once, and not again for what is there.

    Raises:
        OSError: it could not be copied.
    """
    home = folder / CRATES
    source = _users(environment)
    packages = [each for part in dict.fromkeys(("", subfolder)) for each in _locked(workspace / part / "Cargo.lock")]
    if home.exists() or source is None or not packages:
        return
    aside = folder / f"{CRATES}.new"
    remove_tree(aside)
    private_folder(aside)
    _copy(source, aside, packages)
    _carry(source, aside)
    aside.rename(home)


def furnish(folder: Path, home: Path) -> None:
    """Lay a goal's crates into a fresh HOME, where cargo looks for them and can write."""
    for source in (folder / CRATES, folder / FETCHED):
        if source.is_dir():
            shutil.copytree(source, home / ".cargo", symlinks=True, dirs_exist_ok=True)


def there(home: Path) -> bool:
    """Whether a HOME holds crates, so that cargo need not ask a network."""
    return any((home / ".cargo" / kind).is_dir() for kind in ("registry", "git"))


def take(home: Path, folder: Path) -> None:
    """Move the crates that a command fetched into its HOME to a folder, without what cargo can unpack again."""
    if there(home):
        (home / ".cargo").rename(folder / FETCHED)
        for unpacked in ("registry/src", "git/checkouts"):
            remove_tree(folder / FETCHED / unpacked)


def keep(entry: Path, folder: Path) -> None:
    """Copy crates that were fetched into a goal's folder."""
    remove_tree(folder / FETCHED)
    if (entry / FETCHED).is_dir():
        shutil.copytree(entry / FETCHED, folder / FETCHED, symlinks=True)


def _users(environment: Mapping[str, str]) -> Path | None:
    with suppress(RuntimeError):
        home = Path(environment.get("CARGO_HOME") or Path.home() / ".cargo")
        return home if home.is_dir() else None
    return None


def _locked(lock: Path) -> Iterator[Locked]:
    """The packages of a lock that come from elsewhere; none where it is missing or broken, which cargo will tell."""
    found: Any = ()
    with suppress(OSError, ValueError), lock.open("rb") as file:
        found = tomllib.loads(file.read(MAX_LOCK_BYTES).decode("utf-8")).get("package", ())
    for package in found:
        name, version, source = (str(package.get(key, "")) for key in ("name", "version", "source"))
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
            continue
        if source.startswith("git+"):
            yield Locked(
                name, version, re.split(r"[?#]", source)[0].rstrip("/").rpartition("/")[2].removesuffix(".git")
            )
        elif source:
            yield Locked(name, version)


def _copy(source: Path, home: Path, packages: list[Locked]) -> None:
    for registry in sorted(source.glob("registry/cache/*/")):
        found = [path for each in packages if (path := registry / f"{each.name}-{each.version}.crate").is_file()]
        for path in found:
            target = private_folder(home / "registry/cache" / registry.name) / path.name
            shutil.copyfile(path, target)
        if found:
            _copy_index(source / "registry/index" / registry.name, home, {each.name.lower() for each in packages})
    for repository in {each.repository for each in packages if _REPOSITORY.fullmatch(each.repository)}:
        # Only cargo knows the number that it gives to an address.
        for path in source.glob(f"git/db/{repository}-*/"):
            shutil.copytree(path, home / "git/db" / path.name, symlinks=True)


def _copy_index(index: Path, home: Path, names: set[str]) -> None:
    """The part of a sparse index that is about some crates."""
    for path in (index / "config.json", *index.glob(".cache/**/*")):
        if path.is_file() and (path.name == "config.json" or path.name in names):
            target = home / "registry/index" / index.name / path.relative_to(index)
            shutil.copyfile(path, private_folder(target.parent) / target.name)


def _carry(source: Path, home: Path) -> None:
    """What the user's configuration says of where crates come from."""
    config: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        config = tomllib.loads((source / "config.toml").read_text(encoding="utf-8"))
    carried = {name: _open(config[name]) for name in CARRIED if isinstance(config.get(name), dict)}
    if carried:
        (home / "config.toml").write_text(tomli_w.dumps(carried), encoding="utf-8")


def _open(table: Any) -> Any:  # noqa: ANN401 - any part of a TOML file
    if not isinstance(table, dict):
        return table
    return {key: _open(value) for key, value in table.items() if key not in NOT_CARRIED}

"""Manifests that mix product and harness: what of them a worker may change once it may change the file. Pure."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

FREE_TABLES: Mapping[str, frozenset[str]] = {
    "pyproject.toml": frozenset(
        {"project", "build-system", "dependency-groups", "tool.poetry", "tool.uv", "tool.pdm", "tool.setuptools",
         "tool.flit"}
    ),
    "package.json": frozenset(
        {"name", "version", "private", "description", "keywords", "license", "author", "contributors", "repository",
         "homepage", "bugs", "main", "module", "browser", "types", "typings", "bin", "files", "engines",
         "dependencies", "devDependencies", "peerDependencies", "optionalDependencies"}
    ),
    "cargo.toml": frozenset({"package", "dependencies", "dev-dependencies", "build-dependencies", "features"}),
}  # fmt: skip
"""Tables of mixed manifests that follow the worker once ``--may-change`` names the file; the rest is harness."""
_WHERE = re.compile(r"dependenc|^\.build-system|^\.tool\.\w+\.(?:sources?|index)", re.IGNORECASE)
_PLACES = frozenset({"path", "git", "url", "package", "registry", "registry-index"})
_PLACE = re.compile(
    r"(?:file|link|portal|workspace|npm|git|github|gitlab|bitbucket|gist|https?|ssh|git\+\w+):|\.|~?/"
    r"|[\w-]+/[\w.-]+(?:#|$)|.*@\s*(?:file|https?|ssh|git\+\w+):"
)
"""Where a dependency comes from, if not by its name from the registry: it could become another under the same name."""
_CARGO_HARNESS = ("autotests", "autobins", "autoexamples", "autobenches", "build", "links")


def harness_changed(path: str, base: bytes, now: bytes) -> bool:
    """Whether a mixed manifest differs in more than the tables that ``--may-change`` frees.

    What cannot be read counts as changed.
    """
    name = PurePosixPath(path).name.casefold()
    free = FREE_TABLES.get(name)
    if free is None:
        return False
    try:
        return _harness(name, base, free) != _harness(name, now, free)
    except (ValueError, RecursionError):
        return True


def is_mixed_manifest(path: str) -> bool:
    """Whether a file mixes product and harness."""
    return path.rpartition("/")[2].casefold() in FREE_TABLES


def _harness(name: str, content: bytes, free: frozenset[str]) -> dict[str, object]:
    text = content.decode("utf-8")
    data = json.loads(text) if name == "package.json" else tomllib.loads(text)
    tool = data.pop("tool", {}) if name == "pyproject.toml" and isinstance(data, dict) else {}
    if not isinstance(data, dict) or not isinstance(tool, dict):
        raise ValueError("not a table")  # noqa: TRY004 - content, not a programmer's mistake
    tables = {**data, **{f"tool.{key}": value for key, value in tool.items()}}
    kept = {key: value for key, value in tables.items() if key not in free}
    if name == "cargo.toml" and isinstance(data.get("package"), dict):
        kept["package"] = {key: data["package"].get(key) for key in _CARGO_HARNESS}
    return {**kept, "": sorted(_sources({key: value for key, value in tables.items() if key in free}))}


def _sources(table: object, trail: str = "") -> Iterator[str]:
    """Dependencies that are taken from a place of their own: a folder, a repository, another name."""
    if isinstance(table, dict) and _WHERE.search(trail) and table.keys() & _PLACES:
        yield f"{trail}={json.dumps(table, sort_keys=True, default=str)}"
    elif isinstance(table, dict):
        for key, value in table.items():
            yield from _sources(value, f"{trail}.{key}")
    elif isinstance(table, list):
        for value in table:
            yield from _sources(value, trail)
    elif isinstance(table, str) and _WHERE.search(trail) and _PLACE.match(table):
        yield f"{trail}={table}"

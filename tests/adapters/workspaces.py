"""Workspaces of every kind: each function makes one below a folder that is the user's, and returns its top."""

import os
import socket
from contextlib import closing
from pathlib import Path

from support import git, repository, write

FILES = {"a.txt": "a\n", "src/b.py": "b = 1\n", "tests/test_b.py": "def test_b(): assert True\n"}


def clean(user: Path) -> Path:
    return repository(user / "project", FILES)


def staged(user: Path) -> Path:
    top = write(clean(user), {"a.txt": "staged\n", "new.txt": "staged\n"})
    git(top, "add", "--all")
    return top


def staged_and_edited_again(user: Path) -> Path:
    return write(staged(user), {"a.txt": "and edited\n"})


def unstaged(user: Path) -> Path:
    return write(clean(user), {"a.txt": "edited\n"})


def untracked(user: Path) -> Path:
    return write(clean(user), {"deep/er/new.txt": "new\n"})


def deleted(user: Path) -> Path:
    top = clean(user)
    (top / "a.txt").unlink()
    return top


def removed_from_the_index_alone(user: Path) -> Path:
    top = clean(user)
    git(top, "rm", "--cached", "--quiet", "a.txt")
    return top


def unborn(user: Path) -> Path:
    top = user / "project"
    top.mkdir()
    git(top, "init", "--quiet")
    return write(top, FILES)


def detached(user: Path) -> Path:
    top = write(clean(user), {"a.txt": "second\n"})
    git(top, "commit", "--quiet", "--all", "--message=second")
    git(top, "checkout", "--quiet", "--detach", "HEAD~1")
    return top


def conflicted(user: Path) -> Path:
    top = clean(user)
    git(top, "checkout", "--quiet", "-b", "other")
    git(write(top, {"a.txt": "other\n"}), "commit", "--quiet", "--all", "--message=other")
    git(top, "checkout", "--quiet", "main")
    git(write(top, {"a.txt": "main\n"}), "commit", "--quiet", "--all", "--message=main")
    git(top, "merge", "--quiet", "other", check=False)
    assert "<<<<<<<" in (top / "a.txt").read_text("utf-8")
    return top


def shallow(user: Path) -> Path:
    detached(user)
    git(user, "clone", "--quiet", "--depth=1", f"file://{user}/project", "copy")
    return write(user / "copy", {"new.txt": "new\n"})


def linked_worktree(user: Path) -> Path:
    git(clean(user), "worktree", "add", "--quiet", str(user / "linked"))
    return write(user / "linked", {"a.txt": "in the linked one\n"})


def submodule(user: Path) -> Path:
    repository(user / "library", {"lib.py": "lib = 1\n", ".gitattributes": "* text eol=crlf\n"})
    top = clean(user)
    git(top, "submodule", "--quiet", "add", f"{user}/library", "vendor/library")
    git(top, "commit", "--quiet", "--message=vendored")
    return write(top, {"vendor/library/lib.py": "lib = 2\n", "vendor/library/new.py": "new\n"})


def no_repository(user: Path) -> Path:
    (user / "plain").mkdir()
    return write(user / "plain", FILES)


def odd_names(user: Path) -> Path:
    top = write(
        clean(user), {"new\nline": "1", "a\ttab": "2", "quo\"te's": "3", " lead": "4", "-dash": "5", "ü*?": "6"}
    )
    for name in (b"latin-\xfcber", b"bytes-\xff\xfe", b"\x01control"):
        with open(os.path.join(os.fsencode(top), name), "wb") as file:  # noqa: PTH118, PTH123 - bytes
            file.write(name)
    return top


def links(user: Path) -> Path:
    top = clean(user)
    for name, target in (("dangling", "nowhere"), ("outside", "/etc/passwd"), ("folder", "src"), ("loop", "loop")):
        (top / name).symlink_to(target)
    return top


def modes(user: Path) -> Path:
    top = write(clean(user), {"run.sh": "#!/bin/sh\n", "private": "p\n"})
    (top / "run.sh").chmod(0o755)
    (top / "a.txt").chmod(0o711)
    (top / "private").chmod(0o600)
    return top


def nested_with_commits(user: Path) -> Path:
    top = clean(user)
    repository(top / "inner", {"i.txt": "i\n", "deep/j.txt": "j\n"})
    return top


def nested_without_commits(user: Path) -> Path:
    top = write(clean(user), {"inner/i.txt": "i\n"})
    git(top / "inner", "init", "--quiet")
    return top


def nested_empty(user: Path) -> Path:
    top = clean(user)
    (top / "inner").mkdir()
    git(top / "inner", "init", "--quiet")
    return top


def nested_in_nested(user: Path) -> Path:
    top = nested_with_commits(user)
    repository(top / "inner" / "core", {"c.txt": "c\n"})
    repository(top / "inner" / "core" / "most", {"m.txt": "m\n"})
    return top


def nested_and_tracked_as_link(user: Path) -> Path:
    top = nested_with_commits(user)
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message=a link without .gitmodules")
    return top


def nested_with_a_broken_git_file(user: Path) -> Path:
    return write(clean(user), {"inner/.git": "gitdir: /nowhere\n", "inner/i.txt": "i\n"})


def nested_bare(user: Path) -> Path:
    top = clean(user)
    git(top, "init", "--quiet", "--bare", "bare.git")
    return top


def folders_without_files(user: Path) -> Path:
    (clean(user) / "empty" / "er").mkdir(parents=True)
    return user / "project"


def special_files(user: Path) -> Path:
    top = clean(user)
    os.mkfifo(top / "fifo")
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        here = Path.cwd()
        os.chdir(top)  # the path of a socket is short
        try:
            bound.bind("socket")
        finally:
            os.chdir(here)
    return top


def tracked_though_ignored(user: Path) -> Path:
    top = write(clean(user), {".gitignore": "*.log\nout/\n", "kept.log": "kept\n", "out/kept": "kept\n"})
    git(top, "add", "--all", "--force")
    git(top, "commit", "--quiet", "--message=forced")
    return write(top, {"kept.log": "edited\n"})


def tracked_cache(user: Path) -> Path:
    top = write(clean(user), {"node_modules/dep/index.js": "tracked\n"})
    git(top, "add", "--all", "--force")
    return top


def bytes_that_attributes_would_change(user: Path) -> Path:
    rules = "*.crlf text eol=crlf\n*.auto text=auto\n*.id ident\n*.utf16 text working-tree-encoding=UTF-16LE\n"
    top = clean(user)
    (top / ".gitattributes").write_text(rules, "utf-8")
    for name in ("w.crlf", "w.auto", "w.utf16", "w.id"):
        (top / name).write_bytes(b"one\r\ntwo\n$Id$\r\n\x00\xff")
    return top


SCENARIOS = (
    clean, staged, staged_and_edited_again, unstaged, untracked, deleted, removed_from_the_index_alone, unborn,
    detached, conflicted, shallow, linked_worktree, submodule, no_repository, odd_names, links, modes,
    nested_with_commits, nested_without_commits, nested_empty, nested_in_nested, nested_and_tracked_as_link,
    nested_with_a_broken_git_file, nested_bare, folders_without_files, special_files, tracked_though_ignored,
    tracked_cache, bytes_that_attributes_would_change,
)  # fmt: skip

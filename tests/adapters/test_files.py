"""Files that appear whole, bounded reading, and removal that follows no link."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from goalrun.adapters.files import files_below, private_folder, read_bounded, remove_tree, write_whole
from goalrun.errors import EnvironmentFailure

WRITER = """
import sys
from pathlib import Path
from goalrun.adapters.files import write_whole
letters = "ab"
print("ready", flush=True)
while True:
    letters = letters[::-1]
    write_whole(Path(sys.argv[1]), letters[0] * 200_000)
"""


def test_a_reader_sees_one_content_or_the_other_whatever_happens_to_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a" * 200_000, "ascii")
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            seen: set[str] = set()
            while len(seen) < 2:
                content = path.read_text("ascii")
                assert content in {"a" * 200_000, "b" * 200_000}
                seen.add(content[0])
            writer.kill()
        assert path.read_text("ascii") in {"a" * 200_000, "b" * 200_000}


def test_what_is_written_is_for_its_owner_alone_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", "ascii")
    path.chmod(0o666)
    write_whole(path, "ü\udcff")
    assert path.read_bytes() == b"\xc3\xbc\xff"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine", "ascii")
    (tmp_path / "link").symlink_to("precious")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "precious").read_text("ascii") == "mine"
    assert (tmp_path / "link").read_bytes() == b"new"


def test_a_file_that_cannot_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "file", tmp_path / "folder"):
        with pytest.raises(EnvironmentFailure, match=str(path)):
            write_whole(path, "x")
    assert [child.name for child in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"0123456789", "0123456789"), (b"0123456789AB", "0123\n[… 2 bytes left out …]\n6789AB"), (b"", ""),
     (b"\xff\r\n", "\ufffd\r\n")],
)  # fmt: skip
def test_reading_is_bounded_and_says_what_is_left_out(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_bounded(tmp_path / "file", 4, 6) == text


def test_a_private_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    assert private_folder(made) == made


def test_a_tree_is_removed_whatever_its_modes_and_wherever_its_links_lead(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    (keep / "sub").mkdir(parents=True)
    (keep / "sub" / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "a" / "dir-link").symlink_to(keep)
    (tree / "a" / "file-link").symlink_to(keep / "sub" / "file")
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    for path in (tree / "a" / "b" / "file", tree / "a" / "b", tree / "a", tree):
        path.chmod(0)
    remove_tree(tree)
    assert not tree.exists()
    assert (keep / "sub" / "file").exists()
    assert keep.stat().st_mode & 0o777 == 0o755


def test_a_tree_that_is_deeper_than_a_path_can_be_long_is_walked_and_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "first").touch()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert [*files_below(os.fsencode(top))] == [os.fsencode(top / "first")]
    remove_tree(top)
    assert not top.exists()


def test_removing_a_link_a_file_or_nothing_removes_just_that(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "link").symlink_to("keep")
    (tmp_path / "file").touch()
    for name in ("link", "file", "missing"):
        remove_tree(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]

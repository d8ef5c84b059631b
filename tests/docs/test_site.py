"""The pages as a site: all of them are in its navigation, and the generated one is the program's."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from docs.reference import PAGE, reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CONFIG = ROOT / ".mkdocs.yml"


class Loads(HTMLParser):
    """What a browser fetches for a page by itself: all but the targets of links that people follow."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fetched = {"src", "srcset", "poster", "data"} | ({"href"} if tag == "link" else set())
        self.addresses += [value or "" for name, value in attrs if name in fetched]


def loaded(page: Path) -> list[str]:
    """The addresses that a built page or a style sheet fetches."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".css":
        return re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", text)
    parser = Loads()
    parser.feed(text)
    return parser.addresses


def pages(nav: object) -> list[str]:
    """The pages of a navigation, or of a part of it."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []
    return [page for part in parts for page in pages(part)]


def test_the_reference_is_the_programs() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "write it anew: python tests/docs/reference.py"


@pytest.mark.skipif(not CONFIG.exists(), reason="the site's configuration is only in a checkout, not in the sdist")
def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["nav"]
    there = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    assert sorted(pages(nav)) == there, "add new pages to nav in .mkdocs.yml"


@pytest.mark.skipif(shutil.which("zensical") is None, reason="zensical is not installed: pip install goalrun[docs]")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(CONFIG, tmp_path)
    command = ["zensical", "build", "--strict", "-f", CONFIG.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = [path for path in (tmp_path / "site").rglob("*") if path.suffix in {".html", ".css"}]
    assert len(built) > len(list(DOCS.rglob("*.md")))
    addresses = {address for path in built for address in loaded(path)}
    assert "pictures/turn.svg" in addresses, "nothing was found"
    assert {address for address in addresses if re.match(r"(https?:)?//", address)} == set()

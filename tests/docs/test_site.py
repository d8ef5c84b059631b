"""The pages as a site: all of them are in its navigation, and the generated one is the program's."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from docs.reference import PAGE, reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CONFIG = ROOT / ".mkdocs.yml"
LOADED = ('src="http', "src='http", 'src="//', 'rel="stylesheet" href="http', "url(http", "@import")
"""What a page would load from elsewhere begins like this."""


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
    foreign = {f"{path.name}: {mark}" for path in built for mark in LOADED if mark in path.read_text(encoding="utf-8")}
    assert foreign == set()

"""A real browser. Without one its tests are skipped, or fail where GOALRUN_CHROMIUM=required (as in CI)."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages.browser import Browser


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Chromium without a window, one for all tests of a process."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        why = "chromium and chromedriver are not on PATH (Debian: apt install chromium chromium-driver)"
        assert os.environ.get("GOALRUN_CHROMIUM") != "required", why
        pytest.skip(why)
    browser = Browser.start(*(str(path) for path in found))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium: Browser, tmp_path: Path) -> Browser:
    """The browser on an empty page, without cookies, and without a word of earlier pages in its log."""
    chromium.driver.get("about:blank")
    chromium.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    assert tmp_path.is_dir()
    chromium.log()
    return chromium

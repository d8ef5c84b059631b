"""The browser of tests/pages."""

from pages.conftest import browser, chromium

__all__ = ["browser", "chromium"]

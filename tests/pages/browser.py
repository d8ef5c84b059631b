"""Chromium, driven through its own driver (https://www.w3.org/TR/webdriver2/)."""

from dataclasses import dataclass
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

DEADLINE_SECONDS = 60
FOREIGN = "script:not([src='/live.js']), iframe, img, object, embed, link:not([rel=icon]), base, video, audio, math"
INSIDE = """
const found = [];
for (const each of document.querySelectorAll("*"))
  for (const attribute of each.attributes)
    if (/^(on|style$)/.test(attribute.name) || /^\\s*(javascript|data:text)/i.test(attribute.value))
      found.push(each.outerHTML.slice(0, 200));
return found;
"""


@dataclass
class Browser:
    """One browser with one page."""

    driver: webdriver.Chrome

    @classmethod
    def start(cls, program: str, driver: str) -> "Browser":
        options = webdriver.ChromeOptions()
        options.binary_location = program
        # Its own sandbox does not work for root; these pages are the only ones that it opens.
        for switch in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        return cls(webdriver.Chrome(options=options, service=Service(driver)))

    def open(self, address: str) -> None:
        self.driver.get(address)

    def log(self) -> list[str]:
        """What the console says since it was asked last: errors, and what the page's policy forbade."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def text(self, selector: str = "body") -> str:
        """The text of an element, folded or not, in one step: a live page may be another one at any time."""
        return str(self.run(f"return document.querySelector({selector!r}).textContent"))

    def texts(self, selector: str) -> list[str]:
        """The texts of some elements."""
        found = self.run(f"return [...document.querySelectorAll({selector!r})].map(each => each.textContent)")
        return [str(each) for each in found]

    def follow(self, selector: str) -> None:
        """Follow a link."""
        self.open(str(self.run(f"return document.querySelector({selector!r}).href")))

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str) -> Any:  # noqa: ANN401 - whatever the script gives
        return self.driver.execute_script(script)

    def wait_for(self, script: str, what: str) -> None:
        """Wait until an expression in the page is true."""
        WebDriverWait(self.driver, DEADLINE_SECONDS, 0.05).until(lambda _: self.run(f"return {script}"), what)

    def require_harmless(self) -> None:
        """Nothing from outside became part of the page but as text: nothing ran, and nothing was even stopped."""
        assert self.log() == []
        assert "owned" not in self.driver.title.split()
        assert self.run("return window.owned") is None
        assert [each.get_attribute("outerHTML") for each in self.all(FOREIGN)] == []
        assert self.run(INSIDE) == []

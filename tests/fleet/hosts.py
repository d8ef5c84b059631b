"""Machines on a network of their own: network namespaces on a bridge, and a cable to each that can be pulled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NUMBER = os.getpid()


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


class Network:
    """A bridge with one address, which servers listen on, and a machine for each name."""

    def __init__(self) -> None:
        self.prefix = f"10.{100 + NUMBER % 100}.{NUMBER // 100 % 256}"
        self.address = f"{self.prefix}.1"
        self._bridge = f"gb{NUMBER}"
        self._machines: list[str] = []

    def make(self) -> None:
        """Plug it together.

        Raises:
            OSError: there is no ip(8).
            subprocess.CalledProcessError: this machine does not allow it.
        """
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def machine(self, name: str) -> tuple[str, ...]:
        """A new machine; what runs a command on it."""
        self._machines.append(name)
        number = len(self._machines)
        space, inside = f"gn{NUMBER}-{number}", f"gi{NUMBER}-{number}"
        _ip("netns", "add", space)
        _ip("link", "add", self._cable(name), "type", "veth", "peer", "name", inside, "netns", space)
        _ip("-n", space, "addr", "add", f"{self.prefix}.{number + 1}/24", "dev", inside)
        for device in (inside, "lo"):
            _ip("-n", space, "link", "set", device, "up")
        _ip("link", "set", self._cable(name), "master", self._bridge, "up")
        return ("ip", "netns", "exec", space)

    def cut(self, name: str) -> None:
        """Pull a machine's cable: what is on its way is lost, and nobody is told."""
        _ip("link", "set", self._cable(name), "down")

    def mend(self, name: str) -> None:
        """Put it back in."""
        _ip("link", "set", self._cable(name), "up")

    def remove(self) -> None:
        """Nothing of it is left; a namespace goes when nobody is in it."""
        for number in range(1, len(self._machines) + 1):
            _ip("netns", "del", f"gn{NUMBER}-{number}", check=False)
        _ip("link", "del", self._bridge, check=False)

    def _cable(self, name: str) -> str:
        return f"gh{NUMBER}-{self._machines.index(name) + 1}"


@contextmanager
def network() -> Iterator[Network]:
    """A network, where the machine allows one; else a test is skipped, or fails where GOALRUN_NETWORK is "required"."""
    made = Network()
    try:
        try:
            made.make()
            made.machine("probe")
        except (OSError, subprocess.CalledProcessError) as failure:
            give_up = pytest.fail if os.environ.get("GOALRUN_NETWORK") == "required" else pytest.skip
            give_up(f"needs network namespaces: be root, and apt-get install iproute2 ({failure})")
        yield made
    finally:
        made.remove()

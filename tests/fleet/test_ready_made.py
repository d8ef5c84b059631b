"""What docs/fleet.md gives for running workers: nothing of it is run here, but it is what it says that it is."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text("utf-8")
INSTRUCTIONS = {"FROM", "RUN", "USER", "ENV", "CMD"}
"""Those that the page uses, of https://docs.docker.com/reference/dockerfile/."""


def block(kind: str, begins: str = "") -> str:
    (found,) = re.findall(rf"^```{kind}\n({begins}.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def options_of(command: list[str]) -> None:
    """Such a command exists, with such options."""
    program, *words = command
    assert program.rpartition("/")[2] == "goalrun"
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "goalrun", *words[:2], "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in shown, option


def test_the_systemd_unit_is_one(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze")
    text = block("ini")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    options_of(shlex.split(command))
    unit = tmp_path / "goalrun-worker.service"
    unit.write_text(text.replace("/usr/local/bin/goalrun", sys.executable), "utf-8")
    done = subprocess.run([verify, "verify", unit], capture_output=True, check=False)
    assert [line for line in done.stderr.decode().splitlines() if "goalrun-worker.service" in line] == []
    # It can tell: a key that systemd does not know is told.
    unit.write_text(unit.read_text("utf-8").replace("[Install]", "Nonsense=1\n[Install]"), "utf-8")
    wrong = subprocess.run([verify, "verify", unit], capture_output=True, check=False)
    assert "Nonsense" in wrong.stderr.decode()


def test_the_manifest_is_a_plain_deployment() -> None:
    (made,) = yaml.safe_load_all(block("yaml", "apiVersion"))
    assert (made["apiVersion"], made["kind"]) == ("apps/v1", "Deployment")
    spec = made["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    options_of(container["args"])
    assert [each["name"] for each in container["env"]] == ["GOALRUN_FLEET_URL"]
    # The database's address is a secret, and nothing of a pod is kept.
    assert "secretKeyRef" in container["env"][0]["valueFrom"]
    assert pod.keys() == {"terminationGracePeriodSeconds", "containers"}


def test_the_container_file_has_known_instructions() -> None:
    lines = [line for line in block("dockerfile").splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("FROM ")
    assert {line.split()[0] for line in lines} <= INSTRUCTIONS
    (command,) = (line.removeprefix("CMD ") for line in lines if line.startswith("CMD "))
    options_of(yaml.safe_load(command))
    # Workers run git and ssh, and not as root.
    assert all(package in block("dockerfile") for package in ("git ", "openssh-client", "bubblewrap"))
    assert lines.index("USER goalrun") < lines.index(f"CMD {command}")


def test_what_was_not_run_says_so() -> None:
    for title in ("systemd", "Container image", "Kubernetes"):
        said = PAGE.partition(f"### {title}\n")[2].partition("```")[0].lower()
        assert "not run" in said or "never started" in said, title

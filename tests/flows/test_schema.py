"""The JSON Schema of flow files: what ships and what the specification shows fits it, and what is wrong does not."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support import Program

from goalrun.flows.schema import flow_schema
from goalrun.settings import shipped

VALIDATOR = Draft202012Validator(flow_schema())
EXAMPLES = Path(__file__).parent / "examples"
FILES = [*sorted(Path(str(shipped("flows"))).glob("*.toml")), EXAMPLES / "research.toml", EXAMPLES / "fix-parser.toml"]
STEP = '[[step]]\nid = "a"\nrun = "true"\n'


def wrong(data: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(data)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_flows_that_ship_and_those_of_the_specification_fit(path: Path) -> None:
    assert wrong(tomllib.loads(path.read_text(encoding="utf-8"))) == []


def test_the_flow_of_a_goal_file_fits() -> None:
    data = tomllib.loads((EXAMPLES / "goal.toml").read_text(encoding="utf-8"))
    assert [wrong(flow) for flow in data["flows"].values()] == [[]] * len(data["flows"])
    assert data["flows"]


@pytest.mark.parametrize(
    "text",
    [
        f'{STEP}needs = "b"\ntimeout = "30m"\nretry = {{ max = 2, delay = "5s" }}\nfinally = true\n',
        f'{STEP}as = "x"\neach = [1, 2]\nwith = {{ a = 1 }}\ntimeout = 30\ncheck = ["a", "b"]\n',
        f'[args.a]\ntype = "int"\nmin = 1\nenum = [1, 2]\n{STEP}[flows.b]\n[[flows.b.step]]\nid = "c"\nask = "?"\n',
    ],
)
def test_every_way_to_write_a_key_fits(text: str) -> None:
    assert wrong(tomllib.loads(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "step = []\n", f"steps = []\n{STEP}", f"{STEP}nedds = 'b'\n", f"{STEP}timeout = []\n", f"{STEP}gate = 1\n",
        f"{STEP}join = 'some'\n", f"source = 'x'\n{STEP}", f"concurrency = 0\n{STEP}", "[[step]]\nrun = 'true'\n",
        f"[args.a]\ntype = 'float'\n{STEP}",
    ],
)  # fmt: skip
def test_what_is_wrong_in_form_does_not_fit(text: str) -> None:
    assert wrong(tomllib.loads(text))


def test_the_command_prints_it(program: Program) -> None:
    done = program.run("flow", "schema")
    assert (done.code, json.loads(done.out)) == (0, flow_schema())

"""`goalrun demo`: a real goal on a small project, with a scripted worker that first cheats and then does the work."""

import os
import shlex
import sys
import tempfile
from pathlib import Path

from goalrun.adapters.views import read_result
from goalrun.cli.render import Json, note, out
from goalrun.cli.starting import Asked, flags, start
from goalrun.wiring.session import open_session

CODE = '''"""Prices."""


def total(prices, discount=0):
    return sum(prices)
'''
TESTS = """import unittest

from shop import total


class TotalTest(unittest.TestCase):
    def test_sum(self):
        self.assertEqual(total([1, 2, 3]), 6)

    def test_discount(self):
        self.assertEqual(total([100, 100], discount=10), 180)


if __name__ == "__main__":
    unittest.main()
"""
WORKER = '''"""A scripted stand-in for a coding agent: turn 1 cheats, later turns listen to the feedback."""
import os
import pathlib
import sys

prompt = sys.stdin.read()
tests, code = pathlib.Path("tests/test_shop.py"), pathlib.Path("shop.py")
if os.environ["GOALRUN_TURN"] == "1":
    tests.write_text(tests.read_text().replace("180", "200"))
    print("All tests pass now.")
else:
    assert "tests/test_shop.py" in prompt, "the feedback names the file"
    tests.write_text(tests.read_text().replace("200", "180"))
    code.write_text(code.read_text().replace("sum(prices)", "sum(prices) * (100 - discount) / 100"))
    print("Undid my edit of the test and implemented the discount.")
'''


def demo(*, as_json: bool) -> int:
    """Run the demonstration and tell its story."""
    session = open_session()
    scene = Path(tempfile.mkdtemp(prefix="goalrun-demo-"))
    project = scene / "shop"
    (project / "tests").mkdir(parents=True)
    (project / "shop.py").write_text(CODE, encoding="utf-8")
    (project / "tests" / "test_shop.py").write_text(TESTS, encoding="utf-8")
    worker = scene / "worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    python = shlex.quote(sys.executable)
    note(f"A project with a failing test is in {project}.")
    note("A scripted worker gets the goal: first it weakens the test, then it does the work.\n")
    os.chdir(project)
    given = flags(
        worker_cmd=f"{python} {shlex.quote(str(worker))}",
        check=[f"{python} -m unittest discover -s tests"],
        judge=["none"],
    )
    # In lines on a terminal too: they are the story that is told.
    asked = Asked("make the tests pass", None, given, force=False, no_wait=False, detach=False, as_json=as_json)
    code = start(asked._replace(loud="lines"))
    if not as_json:
        goal = session.home.find("", project.resolve())
        _tell(read_result(session.home.folder(goal)), project)
    return code


def _tell(result: Json, project: Path) -> None:
    out("")
    out("What happened:")
    for record in result["turn_records"]:
        caught = [tamper["path"] for tamper in record["verification"]["tampering"]]
        passed = all(check["outcome"] == "pass" for check in record["verification"]["checks"])
        if caught:
            out(
                f"  turn {record['turn']}  the worker said that all tests pass, but it had changed {', '.join(caught)}:"
            )
            out(f"          caught; with that file as it was before, the check {'passed' if passed else 'failed'}.")
        else:
            out(
                f"  turn {record['turn']}  told so, it undid that and changed the code: the check",
            )
            out(
                f"          {'passed' if passed else 'failed'} on its snapshot, in a clean folder that it cannot reach."
            )
    out(f"  The goal is {result['state']}.")
    out("")
    out("Look closer, or try your own:")
    out(f"  goalrun show {result['id']}")
    out(f"  goalrun diff {result['id']}")
    out('  cd your/project && goalrun start "make tests pass" -c "python -m pytest -q"')
    note(f"(the project stays in {project}; remove it when you like)")

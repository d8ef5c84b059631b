"""The tamper suite in pytest: a share of its cases, or all of them at every level with GOALRUN_TAMPER=all."""

import os

import pytest
from tamper.suite import Case, levels, load_cases, run_case

from goalrun.adapters.sandbox import probe

ALL = os.environ.get("GOALRUN_TAMPER") == "all"
CASES = [case for case in load_cases() if ALL or case.share]
FEWEST_CHEATS, FEWEST_HONEST = 18, 10


def test_the_strongest_level_works_here() -> None:
    reason = probe("bwrap")
    if reason:
        left_out = [case.name for case in CASES if case.process_level]
        pytest.skip(f"cases run at level process alone, without {', '.join(left_out) or 'exception'}: {reason}")


def test_the_share_is_worth_its_time() -> None:
    assert sum(not case.honest for case in CASES) >= FEWEST_CHEATS
    assert sum(case.honest for case in CASES) >= FEWEST_HONEST


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    if case.missing:
        pytest.skip(f"needs {', '.join(case.missing)}")
    wanted = levels() if ALL else levels()[:1]
    if wanted == ["process"] and case.process_level:
        pytest.skip(f"not held at level process: {case.process_level}")
    assert not run_case(case, wanted).problems

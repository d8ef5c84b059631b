"""Every parser on arbitrary and on damaged input; see ``targets``. More examples with GOALRUN_FUZZ=N times as many.

A fuzzer that looks at the code's branches: ``pip install 'goalrun[fuzz]'``, ``python tests/fuzz/run.py all``.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.targets import SEEDS, TARGETS, forget_scratch, report_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from goalrun.adapters.reports import RUNNERS, Report

TIMES = int(os.environ.get("GOALRUN_FUZZ", "1"))
MAX_SEED_BYTES = 100_000


@pytest.fixture(autouse=True, scope="module")
def scratch_forgotten() -> Iterator[None]:
    yield
    forget_scratch()


TOKENS = st.sampled_from(
    [b'"', b"{", b"}", b"[", b"]", b"null", b"true", b"-1", b"1e999", b"NaN", b"\\ud800", b"\x00", b"\xff", b"\n",
     b"<!--", b"\n=====\n", b"9" * 2000, b"[" * 2000, b"\xe2\x80\xa8", b"\x1b[2J", b"Infinity", b'"type":"result"']
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with pieces taken out, put in, doubled or swapped; or anything."""
    data = bytearray(draw(st.sampled_from(seeds)) if seeds else b"")
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 60)))
        piece = draw(st.one_of(TOKENS, st.binary(max_size=12), st.just(bytes(data[at:end]) * 2)))
        data[at:end] = piece
    return bytes(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_whatever_it_is_given(name: str) -> None:
    target = TARGETS[name]
    seeds = [seed[:MAX_SEED_BYTES] for seed in target.seeds()]
    for seed in seeds:
        target.check(seed)

    @settings(max_examples=50 * TIMES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.one_of(damaged(seeds), st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode())))
    def holds(data: bytes) -> None:
        target.check(data)

    holds()


FAILING = sorted(path for path in SEEDS.glob("report-*/*") if path.name.startswith("failing"))


@pytest.mark.parametrize("path", FAILING, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_failing_report_that_is_cut_or_followed_by_more_is_no_report_or_still_fails(
    path: Path, tmp_path: Path
) -> None:
    program = next(each for each in RUNNERS if report_name(each) == path.parent.name)
    whole = path.read_bytes()
    (tmp_path / "r.start").write_text("/w\n", "utf-8")

    def found(data: bytes) -> bool | None:
        for name in ("r", "out"):
            (tmp_path / name).write_bytes(data)
        read = Report("command", tmp_path / "r", program).read(tmp_path / "out")
        return None if read is None else bool(read.failing)

    assert found(whole) is True
    chance = random.Random(1)  # noqa: S311 - the same cuts in every run
    cuts = range(len(whole)) if TIMES > 1 else chance.sample(range(len(whole)), min(80, len(whole)))
    assert {found(whole[:cut]) for cut in cuts} <= {None, True}
    assert {found(whole + whole[cut:]) for cut in cuts} <= {None, True}
    assert {found(whole + chance.randbytes(5)) for _ in range(30)} <= {None, True}

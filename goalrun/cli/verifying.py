"""`goalrun verify`: one verification of the workspace as it is, without a goal."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from goalrun.adapters.control import FileControl
from goalrun.adapters.files import remove_tree
from goalrun.adapters.git import run
from goalrun.adapters.repository import BASE_REF
from goalrun.cli.render import note, out, painted, print_json, verification_lines
from goalrun.cli.spec import verification_of
from goalrun.cli.starting import flags
from goalrun.core import missing, result
from goalrun.core.decide import verified
from goalrun.core.evidence import one_line
from goalrun.core.model import Snapshot, VerificationReport
from goalrun.core.spec import AgentSpec, GoalSpec
from goalrun.errors import SpecError
from goalrun.settings import load
from goalrun.wiring.parts import furnish_checks, open_store, open_verifier
from goalrun.wiring.session import Session, open_session, require_outside, workspace_here

PASSED, FAILED, TAMPERED = 0, 12, 13


def verify(base: str, given: dict[str, Any], *, as_json: bool) -> int:
    """Verify the workspace against a revision of it.

    Returns:
        0 when all checks passed, 12 when not, 13 when protected paths differ from the base.
    """
    session = open_session()
    place = workspace_here()
    require_outside(place[0], session.home)
    settings = load(place[0], None, flags(**given)).settings
    if not settings.checks:
        raise SpecError("no check is given", hint='goalrun verify -c "python -m pytest -q", or goalrun init')
    spec = GoalSpec(
        id="g-verify",
        objective="verify",
        workspace=str(place[0]),
        subfolder=place[1],
        worker=AgentSpec(name="none", command=("true",)),
        checks=settings.checks,
        limits=settings.limits,
        verification=verification_of(settings, place, session),
    )
    snapshot, report = _verified(session, spec, base)
    shown = result.verification(report)
    for check, told in zip(report.checks, shown["checks"], strict=True):
        # The files that a goal would keep are gone by now; what is useful of them is in the result.
        told["output"] = check.excerpt
    if as_json:
        print_json({"schema": 1, "base": base, "snapshot": snapshot.model_dump(), **shown})
    else:
        for line in verification_lines(shown):
            out(line)
        for check in report.checks:
            if check.outcome != "pass":
                out(f"\n{one_line(check.command)}\n{check.excerpt}")
        out(f"{painted(report.outcome, sys.stdout)}  sandbox level: {report.sandbox}")
    passed = verified(spec, report)
    if report.green and not passed:
        note("weak passes do not count: strong ones are required")
    return TAMPERED if report.outcome == "tampered" else PASSED if passed else FAILED


def _verified(session: Session, spec: GoalSpec, base: str) -> tuple[Snapshot, VerificationReport]:
    workspace = Path(spec.workspace)
    commit = _revision(workspace, base)
    folder = Path(tempfile.mkdtemp(prefix="verify-", dir=session.home.path))
    try:
        control = FileControl(folder)
        store = open_store(folder, spec)
        store.create()
        snapshot = store.snapshot("verify")
        store.adopt(workspace, commit, snapshot.tree)
        with control.signals():
            furnish_checks(session, folder, spec, lambda: store.tree_of(BASE_REF), note, control.check)
            verifier = open_verifier(session, folder, spec, store, control.check)
            before = verifier.verify_base(Snapshot(commit=BASE_REF, tree=store.tree_of(BASE_REF)), _ignore)
            if hint := missing.hint(spec, before):
                note(f"hint: {hint}")
            if store.tree_of(BASE_REF) == snapshot.tree:
                # Nothing was changed: what holds of the base holds of the workspace.
                return snapshot, before
            return snapshot, verifier.verify(snapshot, "verify", _ignore)
    finally:
        remove_tree(folder)


def _ignore(_role: str, _process: object) -> None:
    """Nothing to record: nobody resumes a verification."""


def _revision(workspace: Path, base: str) -> str:
    if base.startswith("-"):
        raise SpecError(f"--base {base!r} is no revision")
    found = run(["rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"], workspace)
    if found.status != 0:
        raise SpecError(
            f"there is no revision {base!r} in {workspace}", hint="goalrun verify needs a git repository with a commit"
        )
    return found.stdout.decode("ascii").strip()

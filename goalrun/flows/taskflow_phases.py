"""Phases of pi-taskflow as steps: what each type becomes, and what its texts and guards refer to."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from goalrun.core.flow.model import STEP_ID
from goalrun.core.flow.refs import PLACEHOLDER, ROOTS, Ref, shown
from goalrun.core.flow.when import WhenError, parse
from goalrun.flows.taskflow_checks import dependencies

MOST_AT_ONCE = 64
_IN_GUARD = re.compile(rf"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|{PLACEHOLDER.pattern}""", re.DOTALL)
_EVERY = {"id", "type", "dependsOn", "from", "join", "when", "retry", "output", "final", "optional"}
_OF_TYPE = {
    "agent": {"task", "agent", "model"},
    "parallel": {"branches", "agent", "model", "concurrency"},
    "map": {"over", "as", "task", "agent", "model", "concurrency"},
    "gate": {"task", "agent", "model"},
    "reduce": {"task", "agent", "model"},
    "approval": {"task"},
    "flow": {"use", "with"},
}
_FOREIGN = {"thinking", "tools", "cwd"}
Phase = dict[str, Any]


class Said(NamedTuple):
    """What has to be told about an import; ``where`` is in front of every line."""

    lines: list[str]
    where: str = ""

    def tell(self, line: str) -> None:
        """One more line."""
        self.lines.append(self.where + line)


class Texts:
    """Texts of phases, with their placeholders as they are written here.

    Attributes:
        args: the arguments that were referred to, in order.
    """

    def __init__(self, phases: Sequence[Phase], said: Said) -> None:
        self.args: list[str] = []
        self._said = said
        self.ids = _ids(phases, said)
        self._phases = {phase["id"]: phase for phase in phases}
        self._after = {phase["id"]: set(dependencies(phase)) for phase in phases}

    def filled(self, phase: Phase, key: str, text: str) -> str:
        """A text; what referred to nothing stayed as it was there, so it becomes text here."""

        def written(match: re.Match[str]) -> str:
            ref = tuple(match[1].split("."))
            roots = ROOTS | {phase.get("as") or "item"} if phase.get("type") == "map" else ROOTS
            if ref[0] not in roots:
                return match[0]
            found = self._found(phase, ref, key)
            if found is not None:
                return shown(found)
            self._said.tell(f"phase {phase['id']!r}, {key}: {match[0]} referred to nothing, and is kept as plain text")
            return f"{{ {match[1]} }}"

        return PLACEHOLDER.sub(written, text)

    def guard(self, phase: Phase) -> str:
        """A guard; one that cannot be read let its phase run."""
        text = phase.get("when") or ""
        try:
            parse(text)
        except WhenError as failure:
            self._said.tell(f"phase {phase['id']!r}: its guard cannot be read, so it always ran: {text!r}: {failure}")
            return ""

        def written(match: re.Match[str]) -> str:
            if match[1] is not None:
                return match[1]
            found = self._found(phase, tuple(match[2].split(".")), "when")
            if found is None:
                self._said.tell(f"phase {phase['id']!r}, when: {match[0]} referred to nothing, and is null")
            return shown(found) if found is not None else "null"

        return _IN_GUARD.sub(written, text).strip()

    def beyond(self, phase: Phase) -> list[str]:
        """The phases that a phase was found to refer to, and that need not be done when it runs."""
        known = self._sure(phase) | set(dependencies(phase))
        return [name for name in self.ids if name in self._after[phase["id"]] - known]

    def _sure(self, phase: Phase) -> set[str]:
        """The phases that are done whenever a phase runs."""
        rest, found = [phase], set[str]()
        while rest:
            now = rest.pop()
            needs = dependencies(now)
            if now.get("join") == "any" and len(needs) > 1:
                continue
            for need in (self._phases[name] for name in needs if name not in found):
                if not need.get("optional"):
                    found.add(need["id"])
                    rest.append(need)
        return found

    def _found(self, phase: Phase, ref: Ref, key: str) -> Ref | None:
        """A reference as it is written here; None where it referred to nothing."""
        if phase.get("type") == "map" and ref[0] == (phase.get("as") or "item"):
            return ref if key == "task" else None
        if ref[0] == "args" and len(ref) > 1:
            self.args.append(ref[1])
            return ref
        if ref == ("previous", "output") and dependencies(phase):
            return ref
        fits = ref[0] == "steps" and (ref[2:] == ("output",) or ref[2:3] == ("json",))
        if not fits or ref[1] not in self.ids or not self._can_wait(phase["id"], ref[1]):
            return None
        if ref[1] not in self._after[phase["id"]]:
            self._after[phase["id"]].add(ref[1])
        if ref[1] in self.beyond(phase):
            self._said.tell(f"phase {phase['id']!r} refers to {ref[1]!r} without depending on it; here it waits for it")
        return ("steps", self.ids[ref[1]], *ref[2:])

    def _can_wait(self, name: str, other: str) -> bool:
        """Whether a phase can wait for another one: that one does not wait for it."""
        rest, seen = [other], {other}
        while rest:
            for before in self._after[rest.pop()] - seen:
                seen.add(before)
                rest.append(before)
        return name not in seen


def _ids(phases: Sequence[Phase], said: Said) -> dict[str, str]:
    """Every phase's id here."""
    taken = {phase["id"] for phase in phases}
    found: dict[str, str] = {}
    for number, phase in enumerate(phases, start=1):
        name = phase["id"]
        if not re.fullmatch(STEP_ID, name):
            short = f"step{number}"
            while short in taken:
                short += "_"
            taken.add(short)
            said.tell(f"phase {name!r}: its id cannot be a step's here: it is {short!r}")
            name = short
        found[phase["id"]] = name
    return found


def steps_of(phases: Sequence[Phase], texts: Texts, said: Said) -> Iterator[dict[str, Any]]:
    """Each phase as a step, its keys in the order in which people read them."""
    for phase in phases:
        kind = phase.get("type") or "agent"
        does = _does(kind, phase, texts, said)
        when = texts.guard(phase)
        beyond = texts.beyond(phase)
        step: dict[str, Any] = {"id": texts.ids[phase["id"]]}
        declared = dependencies(phase)
        if declared:
            step["needs"] = [texts.ids[name] for name in declared]
        if beyond or (phase.get("join") == "any" and len(declared) > 1):
            # Layers: "any" waited for all, and asked for one that succeeded.
            step["join"] = "done"
        if beyond and declared:
            when = _with_needs(phase, phases, texts, when)
        if when:
            step["when"] = when
        _tell_left_out(kind, phase, said)
        yield {**step, **does, **_how(kind, phase, said)}


def _with_needs(phase: Phase, phases: Sequence[Phase], texts: Texts, when: str) -> str:
    """A guard that asks for what was depended on alone, where more is waited for."""
    optional = {each["id"] for each in phases if each.get("optional")}
    terms = []
    for name in dependencies(phase):
        status = f"{{steps.{texts.ids[name]}.status}}"
        done = f"{status} == done"
        terms.append(f"({done} || {status} == failed)" if name in optional else done)
    if phase.get("join") == "any":
        needed = f"({' || '.join(terms)})"
    else:
        needed = " && ".join(terms)
    return f"{needed} && ({when})" if when else needed


def _does(kind: str, phase: Phase, texts: Texts, said: Said) -> dict[str, Any]:
    """What a step does, by its phase's type."""
    who = {key: phase[key] for key in ("agent", "model") if phase.get(key) and kind not in {"approval", "flow"}}
    if kind == "approval":
        said.tell(
            f"phase {phase['id']!r} asks a person, and waits where nobody is there: there, that approved; "
            "what came before it is shown only where its text refers to it"
        )
        asked = (phase.get("task") or "").strip() and phase["task"]
        return {"ask": texts.filled(phase, "task", asked or "Approve to continue?")}
    if kind == "flow":
        given = _deep(phase.get("with") or {}, phase, texts)
        return {"flow": phase["use"], **({"with": given} if given else {})}
    if kind == "parallel":
        members = [
            {
                **{key: branch[key] for key in ("agent", "model") if branch.get(key)},
                "prompt": texts.filled(phase, "branches", branch["task"]),
            }
            for branch in phase["branches"]
        ]
        for number, branch in enumerate(phase["branches"], start=1):
            _tell_keys(f"phase {phase['id']!r}, branch {number}", branch, {"task", "agent", "model"}, said)
        return {**who, "member": members}
    prompt = {"prompt": texts.filled(phase, "task", phase["task"])}
    if kind == "map":
        name = {"as": phase["as"]} if phase.get("as") else {}
        return {"each": _over(phase, texts), **name, **who, **prompt}
    # An unclear verdict let the flow go on.
    gate = {"gate": True, "on_unclear": "pass"} if kind == "gate" else {}
    return {**gate, **who, **prompt}


def _over(phase: Phase, texts: Texts) -> object:
    over = phase["over"]
    if isinstance(over, str) and over.strip()[:1] == "[":
        try:
            value = json.loads(over)
        except ValueError:
            return texts.filled(phase, "over", over)
        return value
    return texts.filled(phase, "over", over) if isinstance(over, str) else over


def _deep(value: Any, phase: Phase, texts: Texts) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return texts.filled(phase, "with", value)
    if isinstance(value, dict):
        return {key: _deep(below, phase, texts) for key, below in value.items()}
    return [_deep(below, phase, texts) for below in value] if isinstance(value, list) else value


def _how(kind: str, phase: Phase, said: Said) -> dict[str, Any]:
    """How often, how many at once, and what its answer is for."""
    how: dict[str, Any] = {}
    if kind in {"parallel", "map"} and phase.get("output") == "json":
        # Alone, {steps.ID.json} finds the JSON in any text; elements are read one by one only where that is asked for.
        how["expect"] = "json"
        said.tell(f"phase {phase['id']!r}: an element whose answer holds no JSON fails here; there it stayed text")
    retry = phase.get("retry") or {}
    if retry.get("max"):
        how["retry"] = {"max": int(retry["max"])}
        if retry.get("backoffMs"):
            how["retry"]["delay"] = retry["backoffMs"] / 1000
        if retry.get("factor"):
            how["retry"]["factor"] = retry["factor"]
    how |= {key: True for key in ("optional", "final") if phase.get(key)}
    if phase.get("concurrency") and kind in {"parallel", "map"}:
        how["concurrency"] = min(MOST_AT_ONCE, phase["concurrency"])
        if phase["concurrency"] > MOST_AT_ONCE:
            said.tell(f"phase {phase['id']!r}: concurrency is {MOST_AT_ONCE}, the most here")
    return how


def _tell_left_out(kind: str, phase: Phase, said: Said) -> None:
    where = f"phase {phase['id']!r}"
    _tell_keys(where, phase, _EVERY | _OF_TYPE[kind] | {"concurrency"}, said)
    if phase.get("concurrency") and "concurrency" not in _OF_TYPE[kind]:
        said.tell(f"{where}: concurrency means nothing for a phase of type {kind} and is left out")


def _tell_keys(where: str, table: Phase, known: set[str], said: Said) -> None:
    for key in sorted(table.keys() - known):
        if table[key] is None:
            continue
        why = "has no counterpart: set it where the agent is configured;" if key in _FOREIGN else "means nothing there"
        shown_value = json.dumps(table[key], ensure_ascii=False)[:60]
        said.tell(f"{where}: {key} = {shown_value} {why} {'it' if key in _FOREIGN else 'and'} is left out")

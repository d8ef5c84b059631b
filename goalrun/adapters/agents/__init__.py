"""Agents: how each one's output is read. One module a family; all of them give ``said.Said``."""

from collections.abc import Callable, Mapping

from goalrun.adapters.agents.aider import read_aider
from goalrun.adapters.agents.claude import read_amp, read_claude, read_cursor, read_qwen
from goalrun.adapters.agents.codex import read_codex
from goalrun.adapters.agents.copilot import read_copilot
from goalrun.adapters.agents.find import read_found
from goalrun.adapters.agents.gemini import read_gemini
from goalrun.adapters.agents.goose import read_goose
from goalrun.adapters.agents.mini import read_mini
from goalrun.adapters.agents.model import read_model
from goalrun.adapters.agents.opencode import read_opencode
from goalrun.adapters.agents.pi import read_pi
from goalrun.adapters.agents.said import Output, Said
from goalrun.core.spec import AgentSpec

READERS: Mapping[str, Callable[[Output], Said]] = {
    "text": lambda output: Said(text=output.text),
    "claude": read_claude,
    "qwen": read_qwen,
    "amp": read_amp,
    "cursor": read_cursor,
    "codex": read_codex,
    "opencode": read_opencode,
    "pi": read_pi,
    "gemini": read_gemini,
    "copilot": read_copilot,
    "aider": read_aider,
    "mini": read_mini,
    "goose": read_goose,
    "model": read_model,
}
"""By the name that ``AgentSpec.reads`` has; beside them there is "find"."""

REPORTS: Mapping[str, tuple[str, ...]] = {
    "text": (),
    "claude": ("tokens", "cost", "session", "quota", "denials"),
    "qwen": ("tokens", "session", "quota", "denials"),
    "amp": ("tokens", "session"),
    "cursor": ("session", "denials"),
    "codex": ("tokens", "session", "quota"),
    "opencode": ("tokens", "cost", "session", "quota"),
    "pi": ("tokens", "cost", "session", "quota"),
    "gemini": ("tokens", "session", "quota", "denials"),
    "copilot": ("tokens", "session", "quota", "denials"),
    "aider": ("tokens", "cost", "quota"),
    "mini": ("tokens", "cost", "quota"),
    "goose": ("tokens",),
    "model": ("tokens", "quota"),
}
"""What each of them tells; a cost that an agent does not tell is looked up where its model's price is known."""


def read(agent: AgentSpec, output: Output) -> Said:
    """What an agent's output says."""
    if agent.reads == "find":
        return read_found(agent.find, output)
    return READERS[agent.reads](output)

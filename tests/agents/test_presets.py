"""The presets of agents: that each can be read, and says what it was measured with."""

from pathlib import Path

import pytest

from goalrun.adapters.agents import READERS
from goalrun.settings import preset_agents

NEVER_RUN = ("cursor", "goose", "amp", "crush")
PRESETS = ("gemini", "qwen", "copilot", "aider", "mini", "cursor", "goose", "amp", "crush")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_a_reader_and_says_what_it_was_measured_with(name: str) -> None:
    preset = preset_agents()[name]
    assert preset.reads in READERS
    assert preset.session == "fresh"
    assert preset.blocked_line == "GOALRUN BLOCKED:"
    assert not preset.resume or any("{session}" in word for word in preset.resume)
    head = (Path(__file__).parents[2] / "config" / "agents" / f"{name}.toml").read_text().partition("order")[0]
    assert ("Never run here" in head) == (name in NEVER_RUN)
    assert ("Measured with" in head) == (name not in NEVER_RUN)
    assert bool(preset.least) == (name not in NEVER_RUN)

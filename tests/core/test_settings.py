import tomllib
from pathlib import Path
from typing import Any

import pytest
from support import write

from goalrun.adapters.agents import READERS
from goalrun.core.value import seconds
from goalrun.errors import SettingsError
from goalrun.settings import (
    AgentSettings,
    Settings,
    agents,
    load,
    preset_agents,
    shipped,
    user_file,
    write_toml,
)

SHIPPED_AGENTS = [
    "aider", "amp", "claude", "codex", "copilot", "crush", "cursor", "gemini", "goose", "mini",
    "opencode", "pi", "qwen",
]  # fmt: skip


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own configuration file, not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = user_file()
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


def complaint(workspace: Path, toml: str) -> str:
    write(workspace, {"goalrun.toml": toml})
    with pytest.raises(SettingsError) as raised:
        load(workspace)
    assert str(workspace / "goalrun.toml") in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_shipped_defaults_are_those_of_the_code() -> None:
    data = tomllib.loads(shipped("defaults.toml").read_text("utf-8"))
    assert Settings.model_validate(data) == Settings()

    def leaves(value: dict[str, Any], at: str = "") -> set[str]:
        return {
            name
            for key, inner in value.items()
            for name in (leaves(inner, f"{at}{key}.") if isinstance(inner, dict) else {f"{at}{key}"})
        }

    coded = Settings().model_dump(exclude_none=True, exclude={"agents"})
    assert leaves(data) == leaves(coded), "a default of the code is missing from the file"


def test_every_shipped_agent_is_valid_and_has_a_place_of_its_own() -> None:
    found = preset_agents()
    assert sorted(found) == SHIPPED_AGENTS
    orders = [agent.order for agent in found.values()]
    assert sorted(orders) == list(range(1, len(orders) + 1))
    for name, agent in found.items():
        assert agent.command[0] == {"cursor": "cursor-agent"}.get(name, name)
        assert agent.reads in {*READERS, "find"}
        assert (agent.judge_reads or agent.reads) in READERS
        assert agent.blocked_line
        assert not agent.judge or agent.judge[0] in {agent.command[0], "env"}


def test_nothing_is_configured_where_there_is_no_file(workspace: Path) -> None:
    loaded = load(workspace)
    assert (loaded.settings, loaded.sources) == (Settings(), {})


def test_later_sources_outrank_earlier_ones_key_by_key(workspace: Path, user: Path, tmp_path: Path) -> None:
    toml = "[limits]\nmax_turns = {}\n{}"
    files = {
        user: toml.format(1, 'max_usd = 1.5\nstuck_after = 1\nturn_timeout = "1m"'),
        workspace / "goalrun.toml": toml.format(2, 'stuck_after = 2\nturn_timeout = "2m"'),
        tmp_path / "goal.toml": toml.format(3, 'turn_timeout = "3m"'),
    }
    for path, text in files.items():
        path.write_text(text)
    loaded = load(workspace, tmp_path / "goal.toml", {"limits": {"max_turns": 4}})
    limits = loaded.settings.limits
    assert (limits.max_turns, limits.turn_timeout, limits.stuck_after, limits.max_usd) == (4, 180, 2, 1.5)
    assert loaded.sources == {
        "limits.max_turns": "command line",
        "limits.turn_timeout": str(tmp_path / "goal.toml"),
        "limits.stuck_after": str(workspace / "goalrun.toml"),
        "limits.max_usd": str(user),
    }


def test_the_pyproject_speaks_only_where_there_is_no_goalrun_toml(workspace: Path) -> None:
    write(workspace, {"pyproject.toml": '[tool.goalrun]\nchecks = ["pytest"]\n'})
    assert load(workspace).settings.checks == ("pytest",)
    write(workspace, {"goalrun.toml": 'checks = ["make"]\n'})
    assert load(workspace).settings.checks == ("make",)


def test_a_broken_pyproject_matters_only_if_it_speaks_of_goalrun(workspace: Path) -> None:
    write(workspace, {"pyproject.toml": "[project\n"})
    assert load(workspace).settings == Settings()
    write(workspace, {"pyproject.toml": "[project\n[tool.goalrun]\n"})
    with pytest.raises(SettingsError, match=r"pyproject\.toml is not valid TOML"):
        load(workspace)
    write(workspace, {"pyproject.toml": "[project]\nname = 'a'\n[tool.other]\nx = 1\n"})
    assert load(workspace).settings == Settings()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("chekcs = []", "unknown key 'chekcs'; did you mean 'checks'?"),
        ("[limits]\nmax_turn = 1", "unknown key 'limits.max_turn'; did you mean 'max_turns'?"),
        ("[verification]\nzzz = 1", "unknown key 'verification.zzz'; known: baseline, "),
        ("[agents.mine]\ncommand = ['x']\njugde = ['x']", "unknown key 'agents.mine.jugde'; did you mean 'judge'?"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_probably_meant(workspace: Path, toml: str, words: str) -> None:
    assert words in complaint(workspace, toml)


def test_broken_toml_is_reported_with_its_line(workspace: Path) -> None:
    assert "line 2" in complaint(workspace, "checks = []\nworker = = 1\n")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (2 << 20), b"x = " + b"[" * 10_000])
def test_a_file_that_cannot_be_toml_is_refused(workspace: Path, content: bytes) -> None:
    (workspace / "goalrun.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"goalrun\.toml"):
        load(workspace)


def test_a_goal_file_that_is_not_there_is_refused(workspace: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*gone\.toml"):
        load(workspace, workspace / "gone.toml")


@pytest.mark.parametrize(
    "toml",
    [
        "[limits]\nmax_turns = 0", "[limits]\nmax_turns = -1", "[limits]\nmax_turns = 1.5", "[limits]\nmax_usd = 0",
        "[limits]\nmax_usd = inf", "[limits]\nmax_usd = nan", "[limits]\nmax_time = nan", "[limits]\nmax_time = '0s'",
        "[limits]\nmax_time = 'soon'", "[limits]\nstuck_after = -1", "limits = 3", "checks = 'pytest'", "checks = ['']",
        "checks = ['  ']", "objective = ''", "[verification]\nprotected_edits = 'ignore'",
        "[verification]\nprotect = ['[z-a]']", "[agents.x]\ncommand = []", "[agents.x]\njudge = ['x']",
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(workspace: Path, toml: str) -> None:
    key = toml.replace("[", "").split("]")[0].split(" ")[0]
    assert key.split(".", maxsplit=1)[0].strip() in complaint(workspace, toml)


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "ENV", "PYTHONPATH", "PYTHONSTARTUP",
     "NODE_OPTIONS", "NODE_PATH", "RUBYOPT", "PERL5OPT", "JAVA_TOOL_OPTIONS", "GOFLAGS", "RUSTFLAGS",
     "RUSTC_WRAPPER", "CARGO_HOME", "PYTEST_ADDOPTS", "MAKEFLAGS", "GIT_DIR", "npm_config_prefix", "ld_preload"],
)  # fmt: skip
def test_variables_that_would_change_what_a_check_means_are_never_passed_on(workspace: Path, name: str) -> None:
    assert name in complaint(workspace, f"[verification]\npass_env = ['OK', '{name}']")


def test_ordinary_variables_are_passed_on(workspace: Path) -> None:
    write(workspace, {"goalrun.toml": "[verification]\npass_env = ['DATABASE_URL', 'ENVIRONMENT', 'MY_LD_X']"})
    assert load(workspace).settings.verification.pass_env == ("DATABASE_URL", "ENVIRONMENT", "MY_LD_X")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1.5h", 5400),
        ("45", 45),
        (" 2m ", 120),
        (7, 7),
    ],
)
def test_durations_are_read(text: object, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "2 h", "-1h", "1w", "2h!", "1h30", "1e3", "٣s!"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        seconds(text)


def test_own_agents_come_beside_and_before_those_of_the_same_name(workspace: Path) -> None:
    write(
        workspace,
        {"goalrun.toml": "[agents.claude]\ncommand = ['mine']\n[agents.new]\ncommand = ['new']\norder = 2\n"},
    )
    known = agents(load(workspace).settings)
    assert known["claude"] == AgentSettings(command=("mine",))
    assert sorted(known) == sorted([*SHIPPED_AGENTS, "new"])
    # Order 0 is never chosen by itself.
    assert list(known)[:2] == ["codex", "new"]
    assert list(known)[-1] == "claude"


def test_an_agent_s_table_is_taken_whole_from_the_last_source(workspace: Path, user: Path) -> None:
    user.write_text("[agents.x]\ncommand = ['a']\nblocked_line = 'B'\nenv = {K = 'v'}\n")
    write(workspace, {"goalrun.toml": "[agents.x]\ncommand = ['b']\n"})
    assert load(workspace).settings.agents["x"] == AgentSettings(command=("b",))


def test_a_written_file_reads_back_and_is_never_overwritten(workspace: Path) -> None:
    path = workspace / "goalrun.toml"
    write_toml(path, {"checks": ["pytest"], "limits": {"max_turns": 3}})
    assert load(workspace).settings.checks == ("pytest",)
    with pytest.raises(SettingsError, match="is there already"):
        write_toml(path, {})
    assert load(workspace).settings.limits.max_turns == 3

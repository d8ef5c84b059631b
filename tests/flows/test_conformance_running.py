"""The rules of the systems that flows come from, those that need a run: one test each, named after the rule.

Where ``test_running.py`` or ``test_resume.py`` tries a rule with more care, it is not repeated here.
"""

from pathlib import Path

import pytest
from acting import Stage, statuses
from support import Program


@pytest.fixture
def stage(program: Program, tmp_path: Path) -> Stage:
    return Stage.of(program, tmp_path)


def step(name: str, code: int = 0, rest: str = "") -> str:
    """A step that says its name and ends so."""
    return f'[[step]]\nid = "{name}"\nrun = ["sh", "-c", "echo {name}; exit {code}"]\nwrites = false\n{rest}\n'


def test_the_order_in_the_file_means_nothing(stage: Stage) -> None:
    done = stage.run(
        '[[step]]\nid = "b"\nrun = ["echo", "after {steps.a.output}"]\nfinal = true\n' + step("a"),
    )
    assert (done.code, done.json["output"]) == (0, "after a"), done.err


def test_the_result_is_the_final_steps_else_the_last_in_the_list_that_is_done(stage: Stage) -> None:
    assert stage.run(step("a", 0, "final = true") + step("b")).json["output"] == "a"
    assert stage.run(step("c") + step("d") + step("e", 1, "optional = true")).json["output"] == "d"


def test_a_failed_step_fails_the_run_but_not_what_does_not_need_it(stage: Stage) -> None:
    done = stage.run(step("a", 1) + step("b") + step("c", 0, 'needs = ["a"]') + step("d", 0, 'needs = ["b"]'))
    assert done.code == 14
    assert statuses(done.json) == {"a": "failed", "b": "done", "c": "skipped", "d": "done"}


def test_a_skipped_step_does_not_satisfy_a_need_and_any_needs_one_success(stage: Stage) -> None:
    done = stage.run(
        step("a")
        + step("off", 0, 'when = "false"')
        + step("both", 0, 'needs = ["a", "off"]')
        + step("one", 0, 'needs = ["a", "off"]\njoin = "any"')
        + step("none", 0, 'needs = ["off"]\njoin = "any"')
    )
    assert done.code == 0, done.err
    assert [statuses(done.json)[name] for name in ("both", "one", "none")] == ["skipped", "done", "skipped"]


def test_a_reference_to_what_is_not_done_is_missing_and_no_error(stage: Stage) -> None:
    done = stage.run(
        step("off", 0, 'when = "0"')
        + '[[step]]\nid = "told"\nneeds = ["off", "on"]\njoin = "any"\nrun = ["echo", "[{steps.off.output}{steps.off.json.x}]"]\n'  # noqa: E501
        + step("on")
        + step("guard", 0, 'when = "!{steps.off.output}"\njoin = "done"\nneeds = ["on"]')
    )
    assert done.code == 0, done.err
    assert done.json["steps"]["told"]["text"] == "[]"
    assert statuses(done.json)["guard"] == "done"


def test_previous_is_the_last_need_that_is_done_and_needs_is_all_of_them(stage: Stage) -> None:
    done = stage.run(
        step("a")
        + step("b")
        + step("off", 0, 'when = "0"')
        + '[[step]]\nid = "z"\nneeds = ["a", "b", "off"]\njoin = "done"\nrun = ["echo", "{previous.output}|{needs}"]\n'
    )
    assert done.json["output"] == "b|### a\n\na\n\n### b\n\nb", done.err


def test_values_that_are_no_text_go_in_as_json_and_are_not_filled_again(stage: Stage) -> None:
    done = stage.run(
        '[[step]]\nid = "a"\nrun = ["echo", "{args.it} {args.text}"]\n[args.it]\ndefault = { a = [1] }\n'
        '[args.text]\ndefault = "{args.it}"\n'
    )
    assert done.json["output"] == '{\n  "a": [\n    1\n  ]\n} {args.it}', done.err


def test_sections_of_items_are_headed_and_separated(stage: Stage) -> None:
    done = stage.run('[[step]]\nid = "a"\neach = ["x", "y"]\nrun = ["echo", "{item}"]\n')
    assert done.json["output"] == "### [1/2] command\n\nx\n\n---\n\n### [2/2] command\n\ny", done.err


def test_a_gate_whose_call_failed_is_a_failed_step_and_no_block(stage: Stage) -> None:
    done = stage.run(step("gate", 3, "gate = true") + step("b"))
    assert (done.code, statuses(done.json)) == (14, {"gate": "failed", "b": "done"}), done.err


def test_a_block_says_who_and_why_and_shows_the_gates_text(stage: Stage) -> None:
    text = '[[step]]\nid = "gate"\ngate = true\nrun = ["printf", "%s", "All of it.\\nVERDICT: REJECT too thin"]\n'
    done = stage.run(text + step("b", 0, 'needs = ["gate"]\njoin = "any"'))
    assert (done.code, done.json["state"]) == (6, "blocked"), done.err
    assert done.json["output"].startswith("gate blocked the flow: too thin\n\nAll of it.")
    assert done.json["steps"]["b"]["status"] == "skipped"


def test_each_item_has_its_own_retries(stage: Stage) -> None:
    body = f"echo x >> {stage.lab}/t$0; test $0 = good -o $(wc -l < {stage.lab}/t$0) -ge 3"
    done = stage.run(
        f'[[step]]\nid = "a"\neach = ["good", "bad"]\nrun = ["bash", "-c", "{body}", "{{item}}"]\nretry = {{ max = 2 }}\n'  # noqa: E501
        "writes = false\n"
    )
    assert done.code == 0, done.err
    assert [member["attempts"] for member in done.json["steps"]["a"]["members"]] == [1, 3]
    assert (stage.marks("tgood"), stage.marks("tbad")) == (1, 3)


def test_a_question_without_words_has_some(stage: Stage) -> None:
    done = stage.run('[args.q]\n[[step]]\nid = "a"\nask = "{args.q}"\n')
    assert (done.code, done.json["detail"]) == (9, "Approve to continue?"), done.err

"""A goal whose objective, files, worker, check and judge all try to become part of a page."""

import json
from pathlib import Path
from typing import Any

from support import PYTHON, Program, script

RUN = "window.owned=1;document.title='owned'"
TRICKS = (
    f"<script>{RUN}</script>",
    f'<img src=x onerror="{RUN}">',
    f"</title></style></textarea></pre></details><script>{RUN}</script>",
    f'<svg/onload="{RUN}"><math><a xlink:href="javascript:{RUN}">x</a></math>',
    f'<a href="javascript:{RUN}">click</a><iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    f"' onmouseover='{RUN}' x=' \" autofocus onfocus=\"{RUN}\" x=\"",
    "{{ 7 * 7 }}{% raw %} ${7 * 7} &lt;script&gt; ]]> --> <!--",
    "<meta http-equiv=refresh content='0;url=about:blank'><base href=//localhost:1/><style>*{display:none}</style>",
)
CONTROLS = "\x1b[31mred\x1b[0m\x1b]0;owned\x07\x1b[2J \u202egnp.exe\u2066 \u200b\ufeff\x08\x7f\x9b31m"
HOSTILE = " ".join(TRICKS)
BODY = f"""
import pathlib, sys
text = {HOSTILE + CONTROLS!r} + "\\0"
"""
NAME = "<img src=x onerror=document.title='owned'> \u202e\x1b[31m\n'\".txt"


def hostile_goal(program: Program, tmp_path: Path) -> dict[str, Any]:
    """The result of such a goal, which ends in max_turns."""
    worker = script(
        tmp_path / "worker.py",
        f"{BODY}pathlib.Path({NAME!r}).write_text(text + 'x' * 1_000_000 + text)\n"
        "pathlib.Path('.gitattributes').write_text('* -diff\\n')\n"
        "sys.stdout.write(text + '\\n' + 'y' * 1_000_000 + text)\nsys.stderr.write(text)\n",
    )
    check = script(tmp_path / "check.py", f"{BODY}sys.stdout.write(text + 'z' * 1_000_000 + text)\n")
    answer = "print(json.dumps({'nonce': os.environ['GOALRUN_NONCE'], 'achieved': False, 'reason': text}))"
    judge = script(tmp_path / "judge.py", f"import json, os\n{BODY}sys.stdin.read()\n{answer}\n")
    # Words behind `#` are a comment to the shell, and part of the command to us.
    done = program.run(
        "start", HOSTILE + CONTROLS, "--worker-cmd", f"{worker} # {TRICKS[0]}", "-c", f"{check} # {TRICKS[1]}",
        "--judge-cmd", judge, "--max-turns", "1", "--no-baseline", "--json",
    )  # fmt: skip
    assert done.code == 3, done.err
    assert PYTHON in done.json["turn_records"][0]["verification"]["checks"][0]["command"]
    result: dict[str, Any] = json.loads(done.out)
    return result

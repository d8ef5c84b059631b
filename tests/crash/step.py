"""An agent of the user's own, as the worker of a step: the first word of its prompt names the step, or its item.

It keeps the diary of ``worker.py``, with a line for every call that it is.
"""

import json
import os
import sys
import time

INPUT, OUTPUT = 7, 3
prompt = sys.stdin.read()
name, turn = prompt.split()[0], int(os.environ["GOALRUN_TURN"])
run = f"{time.monotonic_ns():x}"


def witness(**fact: object) -> None:
    line = json.dumps({**fact, "goal": os.environ["GOALRUN_GOAL_ID"], "run": run, "turn": turn}).encode() + b"\n"
    place = os.open(os.environ["CRASH_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(place, line)
    os.close(place)


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes longer than all of this
        file.write(text)


witness(what="called", path=name)
witness(what="spent", tokens=INPUT + OUTPUT)
if name.startswith("each"):
    write(f"{name}.txt", f"{turn}\n")
if name == "fix":
    write("shop.txt", "fixed\n" if turn >= 2 else "turn 1\n")
sys.stdout.write(json.dumps({"type": "result", "text": f"did {name}", "input": INPUT, "output": OUTPUT, "usd": 0.01}))

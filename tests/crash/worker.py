"""An agent of the user's own: does a little, says what it spends, and keeps a diary that goalrun knows nothing of.

``worker.py [SESSION]``, with ``python -I -S``. CRASH_WITNESS names the diary, CRASH_GATE a file that it waits for;
with CRASH_TROUBLE it is at first refused for its quota, and then asks to wait.
Its third turn fixes what the check looks for; in its second it edits the check, which is protected.
"""

import json
import os
import subprocess
import sys
import time

CHECK = 'echo "checked by $0"\ngrep -q fixed shop.txt\n'
INPUT, OUTPUT = 70, 30


def witness(**fact: object) -> None:
    place = os.open(os.environ["CRASH_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(
        place, json.dumps({**fact, "goal": os.environ["GOALRUN_GOAL_ID"], "run": RUN, "turn": TURN}).encode() + b"\n"
    )
    os.close(place)


def say(**event: object) -> None:
    sys.stdout.write(json.dumps({**event, "session": SESSION}) + "\n")
    sys.stdout.flush()


def write(name: str, text: str, mode: str = "w") -> None:
    with open(name, mode, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes longer than all of this
        file.write(text)


TURN = int(os.environ["GOALRUN_TURN"])
RUN = f"{time.monotonic_ns():x}"
SESSION = sys.argv[1] if len(sys.argv) > 1 else f"session-{RUN}"
prompt = sys.stdin.read()
hints = [line for line in prompt.splitlines() if "hint-" in line]
witness(what="begin", given=sys.argv[1:], told="was cut before" in prompt, hints=hints)
with open(os.environ["CRASH_WITNESS"], encoding="utf-8") as diary:  # noqa: PTH123 - the same
    KINDS = {json.loads(line).get("kind") for line in diary}
if "CRASH_TROUBLE" in os.environ and "quota_over" not in KINDS:
    write("diary.txt", f"{RUN} {TURN}\n", "a")
    witness(what="edited")
    # A limit that is over: it is asked again in a second.
    sys.stdout.write(json.dumps({"type": "limited", "why": "too many", "reset": 1}) + "\n")
    sys.exit(1)
say(type="begin")
witness(what="named", session=SESSION)
# It dies with the worker, though it leaves its session.
subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
write("diary.txt", f"{RUN} {TURN}\n", "a")
witness(what="edited")
while "CRASH_GATE" in os.environ and not os.path.exists(os.environ["CRASH_GATE"]):  # noqa: PTH110 - the same
    time.sleep(0.02)
if TURN == 2:
    write("tests/check.sh", "exit 0\n")
else:
    write("tests/check.sh", CHECK)
write("shop.txt", "fixed\n" if TURN >= 3 else f"turn {TURN}\n")
witness(what="spent", tokens=INPUT + OUTPUT)
WAITS = "CRASH_TROUBLE" in os.environ and "turn_parked" not in KINDS
say(type="result", text="GOALRUN WAIT: 0.1s" if WAITS else f"did turn {TURN}", input=INPUT, output=OUTPUT, usd=0.01)
witness(what="end")

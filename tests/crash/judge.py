"""A judge that agrees, says what that costs, and keeps the same diary as the worker."""

import json
import os
import sys

INPUT, OUTPUT = 7, 3
sys.stdin.read()
place = os.open(os.environ["CRASH_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(
    place,
    json.dumps({"what": "judged", "goal": os.environ["GOALRUN_GOAL_ID"], "tokens": INPUT + OUTPUT}).encode() + b"\n",
)
answer = json.dumps({"nonce": os.environ["GOALRUN_NONCE"], "achieved": True, "reason": "it does what was asked"})
sys.stdout.write(json.dumps({"answer": answer, "input": INPUT, "output": OUTPUT, "usd": 0.001}))

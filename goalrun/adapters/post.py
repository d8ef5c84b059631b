"""A program that posts its standard input, a JSON object, to the address in $GOALRUN_WEBHOOK; standard library alone.

It is run as a hook is: in a process of its own, with a deadline, so that no server can hold up a goal. Certificates are
checked, and redirections are not followed: what is posted is for the one address that the user named.
"""

import os
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

VARIABLE = "GOALRUN_WEBHOOK"
TIMEOUT_SECONDS = 8.0
MAX_BYTES = 4 << 20


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - whatever urllib gives
        """Follow nothing; the answer is then an error with the server's status."""


def main() -> int:
    """Post, and say what the server answered; 0 for a status of 2xx."""
    address = os.environ.get(VARIABLE, "")
    body = sys.stdin.buffer.read(MAX_BYTES)
    if not address.startswith(("https://", "http://")):
        sys.stdout.write(f"${VARIABLE} is no address that begins with https:// or http://\n")
        return 1
    headers = {"Content-Type": "application/json", "User-Agent": "goalrun"}
    request = urllib.request.Request(address, body, headers, method="POST")  # noqa: S310 - checked above
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=TIMEOUT_SECONDS) as answer:
            status = int(answer.status)
    except urllib.error.HTTPError as refusal:
        status = refusal.code
    except (OSError, ValueError) as failure:
        sys.stdout.write(f"not posted: {failure}\n")
        return 1
    sys.stdout.write(f"the server answered {status}\n")
    return 0 if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else 1


if __name__ == "__main__":
    sys.exit(main())

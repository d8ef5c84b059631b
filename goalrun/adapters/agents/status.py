"""What an HTTP status of a model's provider means for a turn."""

from http import HTTPStatus
from typing import Literal


def by_status(status: int) -> Literal["limited", "refused", "unreachable", "failed"]:
    """The kind of a failure that a provider answers with (RFC 9110, section 15)."""
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.PAYMENT_REQUIRED}:
        return "limited"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return "refused"
    its_own = status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return "unreachable" if its_own else "failed"

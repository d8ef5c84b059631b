"""A share of the tests of flows runs by default; all of them, and with larger numbers, with ``GOALRUN_FLOWS=all``."""

import os

import pytest

ALL = os.environ.get("GOALRUN_FLOWS") == "all"
REST = pytest.mark.skipif(not ALL, reason="only with GOALRUN_FLOWS=all")
MANY = 100 if ALL else 20
"""Calls that are made once, where one of them fails."""

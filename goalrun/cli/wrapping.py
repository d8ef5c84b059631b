"""Flows at work: run one, put a goal around one, answer one that waits."""

from pathlib import Path
from typing import Any

from goalrun.adapters.journal import SqliteJournal, replay
from goalrun.adapters.shelf import FileShelf
from goalrun.adapters.views import JOURNAL
from goalrun.cli.flow_spec import FlowAsked

"""goalrun: hand a coding agent a goal and walk away.

What a worker in Python uses (``agent``, ``parallel``, …) is in ``goalrun.api``, and loaded when it is asked for.
"""

TYPE_CHECKING = False
"""What type checkers take for true; importing `typing` would be half of the start of each command."""

if TYPE_CHECKING:
    from goalrun.api import agent, args, ask, budget, check, flow, log, parallel, phase, pipeline

__all__ = [
    "__version__", "agent", "args", "ask", "budget", "check", "flow", "log", "parallel", "phase", "pipeline",
]  # fmt: skip

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'goalrun' has no attribute {name!r}")
    from goalrun import api

    return getattr(api, name)

"""goalrun: hand a coding agent a goal and walk away.

What a worker in Python uses (``agent``, ``parallel``, …) is in ``goalrun.api``, what a program that runs goals uses
(``Goal``, ``run_goal``, …) in ``goalrun.embed``. Both are loaded when they are asked for.
"""

TYPE_CHECKING = False
"""What type checkers take for true; importing `typing` would be half of the start of each command."""

if TYPE_CHECKING:
    from goalrun.api import agent, args, ask, budget, check, flow, log, parallel, phase, pipeline
    from goalrun.embed import Ended, Goal, resume_goal, run_goal

__all__ = [
    "Ended", "Goal", "__version__", "agent", "args", "ask", "budget", "check", "flow", "log", "parallel", "phase",
    "pipeline", "resume_goal", "run_goal",
]  # fmt: skip

__version__ = "0.1.0"
_EMBED = {"Ended", "Goal", "resume_goal", "run_goal"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'goalrun' has no attribute {name!r}")
    if name in _EMBED:
        from goalrun import embed

        return getattr(embed, name)
    from goalrun import api

    return getattr(api, name)

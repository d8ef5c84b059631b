"""goalrun: hand a coding agent a goal and walk away."""

__all__ = ["__version__"]

__version__ = "0.1.0"

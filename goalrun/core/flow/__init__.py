"""Flows: a worker that is more than one call. Values, and what follows from them; pure like the rest of the core."""

"""Goals over several machines: a queue in PostgreSQL, and workers that run the same loop as one machine does."""

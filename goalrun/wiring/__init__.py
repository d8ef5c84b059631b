"""The composition root: which adapters a goal gets, and what commands do with goals."""

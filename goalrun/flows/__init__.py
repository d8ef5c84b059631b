"""Flows at work: their files, and the order in which their steps run."""

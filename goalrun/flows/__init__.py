"""Runs flows: a worker like any other, made of steps that run side by side in threads. The world comes as ports."""

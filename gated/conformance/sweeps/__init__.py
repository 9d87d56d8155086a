"""Exhaustive sweeps: every input of a function, its values and derivatives, measured against proven results."""

"""Thin targets: the functions and modules of others, where their own name is not callable as the contract calls it.

Nothing is computed here. A module imports its package and no other, and is imported by the process that grades.
"""

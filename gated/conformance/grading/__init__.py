"""`gated check`: a stranger's implementation against the exact results, what is found, and what it computes."""

"""The field, measured: which implementations of others are graded, and the page of what was found."""

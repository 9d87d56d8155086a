"""Golden vectors: inputs with their exact results, in files that any language reads.

``gated/vectors`` has the files, and ``docs/vectors.md`` tells readers how to use them. The subjects, one a module: what
there are vectors of (``catalogue``), which inputs (``selection``), what is expected there (``expected``, ``flags``),
the form of the files (``format``, ``schema``), and those who write, read and verify them (``writer``, ``reader``,
``verifier``). Importing this package loads none of these but the catalogue.
"""

from gated.conformance.vectors.catalogue import FUNCTIONS, Function

__all__ = ["FUNCTIONS", "Function"]

"""The digest of a backend's code, by which a published result says what it is of.

It is taken of the syntax, so that comments, docstrings, blank lines and the breaking of lines leave it as it is: a
result is of other code where the code does something else. :func:`ast.dump` would not do: what it prints of a default
or of an empty field differs between versions of Python.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

from gated.conformance.backends import of_backend
from gated.contract import BACKENDS

__all__ = ["code_digest", "digest"]


def code_digest(backend: str) -> str:
    """SHA-256 of the code of a backend, or of another form of it, and of the contract that the backends share."""
    import gated

    package = Path(gated.__file__).parent
    folder = package / BACKENDS[of_backend(backend)].module.removeprefix("gated.")
    paths = [package / "contract.py", *sorted(folder.rglob("*.py"))]
    return digest((path.relative_to(package).as_posix(), path.read_bytes()) for path in paths)


def digest(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 of the names and the syntax of Python files, in their order; the same under Python 3.11 to 3.13."""
    found = hashlib.sha256()
    for name, source in files:
        found.update(f"{name}\0{_normal(ast.parse(source, name))}\0".encode())
    return found.hexdigest()


def _normal(part: object) -> str:
    """A syntax tree in one form: types of nodes with the fields that they have, without strings that are statements."""
    match part:
        case ast.JoinedStr(values=values):
            # Python 3.12 ends a format that ends with a field of its own, as f"{x:>{width}}", with an empty string.
            pieces = (one for one in values if not (isinstance(one, ast.Constant) and one.value == ""))
            return f"JoinedStr({', '.join(map(_normal, pieces))})"
        case ast.AST():
            fields = ((name, getattr(part, name)) for name in part._fields)
            there = (f"{name}={_normal(one)}" for name, one in fields if one is not None and one != [])
            return f"{type(part).__name__}({', '.join(there)})"
        case list():
            return f"[{', '.join(_normal(one) for one in part if not _is_docstring(one))}]"
        case _:
            return ascii(part)


def _is_docstring(part: object) -> bool:
    """Also of an attribute, which the compiler takes for a statement without effect."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)

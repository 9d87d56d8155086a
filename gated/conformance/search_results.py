"""What a search found, as a file: the worst inputs of each function of a backend, and what they were found with."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gated.conformance.adapters import Adapter
from gated.conformance.search import Found, search

__all__ = ["SEARCHED", "SearchError", "SearchResult", "read_search", "search_all"]

_FORMAT: Final = "gated-search"
_VERSION: Final = 1

SEARCHED: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    ("sigmoid", {}),
    ("silu", {}),
    ("swish", {}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("glu", {}),
    ("geglu", {}),
    ("geglu", {"approximate": "tanh"}),
    ("swiglu", {}),
    ("clamped_swiglu", {}),
)
"""The functions that are searched, with their keywords. relu, bilinear and reglu round once at most."""


class SearchError(ValueError):
    """A file of a search that cannot be used; the text names the file and what is wrong."""


@dataclass(frozen=True)
class SearchResult:
    """The searches of one backend in one dtype.

    Attributes:
        code: SHA-256 of the backend's source.
        found: the worst points, of each quantity by error and by share of the bound.
    """

    backend: str
    dtype: str
    device: str
    versions: Mapping[str, str]
    code: str
    date: str
    evaluations: int
    seed: int
    found: Sequence[Found]

    def write(self, folder: Path) -> Path:
        """Writes the file, named after dtype and backend."""
        content = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        content["found"] = [_as_json(one) for one in self.found]
        content["sha256"] = _digest(content)
        path = folder / f"search-{self.dtype}.{self.backend}.json"
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path


def search_all(
    adapter: Adapter,
    functions: Sequence[str] | None,
    dtype: str,
    *,
    evaluations: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Found]:
    """Searches each of :data:`SEARCHED`, or those of these functions, with this many evaluations each."""
    for function, static in SEARCHED:
        if functions is None or function in functions:
            yield from search(
                adapter, function, dtype, evaluations=evaluations, seed=seed, static=static, progress=progress
            )


def today() -> str:
    """The date, YYYY-MM-DD, in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def read_search(path: Path) -> SearchResult:
    """Reads a file of a search.

    Raises:
        SearchError: it is none, is of another version, or was changed.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SearchError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise SearchError(f"{path}: not JSON, or cut short: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise SearchError(f"{path}: not the result of a search")
    if content.get("version") != _VERSION:
        raise SearchError(f"{path}: version {content.get('version')!r}, expected {_VERSION}")
    if content.pop("sha256", None) != _digest(content):
        raise SearchError(f"{path}: its content is not what its sha256 says: it was changed")
    fields = {name: one for name, one in content.items() if name not in ("format", "version", "found")}
    return SearchResult(**fields, found=[_from_json(one) for one in content["found"]])


def _as_json(found: Found) -> dict[str, Any]:
    """For JSON, which has no infinity: null stands for it."""
    return {name: None if one == math.inf else one for name, one in asdict(found).items()}


def _from_json(content: Mapping[str, Any]) -> Found:
    numbers = {name: math.inf if content[name] is None else content[name] for name in ("error", "bound")}
    return Found(**{**content, **numbers})


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

"""What a search found, as a file: the worst inputs of each function of a backend, and what they were found with."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gated.conformance.backends import Adapter
from gated.conformance.records import Kind, RecordError, from_json, to_json
from gated.conformance.search import Found, search

__all__ = ["SEARCHED", "SearchError", "SearchResult", "read_search", "search_all"]

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


class SearchError(RecordError):
    """A file of a search that cannot be used."""


_KIND: Final = Kind("gated-search", 1, "the result of a search", SearchError)


@dataclass(frozen=True)
class SearchResult:
    """The searches of one backend in one dtype.

    Attributes:
        code: the digest of the backend's code (:mod:`gated.conformance.source`).
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
        found = [{name: to_json(one) for name, one in asdict(found).items()} for found in self.found]
        path = folder / f"search-{self.dtype}.{self.backend}.json"
        _KIND.write(path, {**asdict(self), "found": found})
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
    content = _KIND.read(path)
    found = [Found(**{name: from_json(one) for name, one in point.items()}) for point in content.pop("found")]
    return SearchResult(**content, found=found)

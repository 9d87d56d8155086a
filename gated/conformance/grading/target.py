"""The TARGET of a check: parsed, imported, and its framework guessed."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = [
    "FORMS",
    "Location",
    "Symbol",
    "TargetError",
    "frameworks_imported",
    "guess_framework",
    "load",
    "one_line",
    "parse",
]

FORMS: Final = "package.module:attr, path/to/file.py:attr, model.onnx or libx.so:symbol"

_LIBRARY: Final = re.compile(r"\.(so(\.\d+)*|dylib)$")
_FRAMEWORK_OF: Final = {
    "torch": "torch",
    "triton": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "flax": "jax",
    "tensorflow": "tensorflow",
    "tf_keras": "tensorflow",
    "keras": "keras",
    "numpy": "numpy",
    "scipy": "numpy",
}
"""The adapter that a top-level package points to."""


class TargetError(Exception):
    """The target cannot be loaded: one line that names what was expected and what came."""


@dataclass(frozen=True)
class Location:
    """Where a target is.

    Attributes:
        kind: ``"module"``, ``"file"``, ``"model"`` or ``"library"``.
        place: the module's dotted name, or the path.
        attribute: the dotted attribute or the symbol; ``""`` for a model.
    """

    kind: str
    place: str
    attribute: str


@dataclass(frozen=True)
class Symbol:
    """A function of a shared library, by name."""

    library: Path
    name: str


def one_line(error: BaseException) -> str:
    """The type and the first line of the message of an exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    text = f"{name}: {lines[0]}" if lines else name
    return text if len(text) <= 300 else text[:297] + "..."


def parse(text: str) -> Location:
    """The location that a TARGET names; nothing is opened.

    Raises:
        TargetError: it has none of the forms.
    """
    if text.endswith(".onnx"):
        return Location("model", text, "")
    place, colon, attribute = text.rpartition(":")
    dotted = attribute.split(".")
    if not colon or not place or not all(part.isidentifier() for part in dotted):
        hint = f"; which attribute of it? {text}:attr" if text.endswith(".py") or _LIBRARY.search(text) else ""
        raise TargetError(f"{text}: TARGET must be {FORMS}{hint}")
    if place.endswith(".py"):
        return Location("file", place, attribute)
    if _LIBRARY.search(place):
        if len(dotted) > 1:
            raise TargetError(f"{text}: a symbol has no attributes, got {attribute}")
        return Location("library", place, attribute)
    if not all(part.isidentifier() for part in place.split(".")):
        raise TargetError(f"{text}: TARGET must be {FORMS}")
    return Location("module", place, attribute)


def load(text: str) -> Any:
    """The callable that a TARGET names, the :class:`~pathlib.Path` of a model, or the :class:`Symbol` of a library.

    Raises:
        TargetError: there is no such file, module or attribute, its import raises, or it is not callable.
    """
    location = parse(text)
    if location.kind != "module" and not Path(location.place).is_file():
        raise TargetError(f"{text}: there is no file {location.place}")
    if location.kind == "model":
        return Path(location.place)
    if location.kind == "library":
        return Symbol(Path(location.place).resolve(), location.attribute)
    module = _import_file(Path(location.place)) if location.kind == "file" else _import(location.place)
    found = _attribute(text, module, location)
    if not callable(found):
        raise TargetError(f"{text}: must be callable, got {type(found).__name__}")
    return found


def _import(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise TargetError(f"{name}: there is no module {error.name}{_installing(error)}") from error
        raise TargetError(f"{name}: its import raised {one_line(error)}{_installing(error)}") from error
    except BaseException as error:  # sys.exit at import is the target's doing, too
        raise TargetError(f"{name}: its import raised {one_line(error)}") from error


def _installing(error: BaseException) -> str:
    """What installs a framework whose module is missing."""
    from gated.conformance.adapters import FRAMEWORKS  # which imports this module

    missing = (getattr(error, "name", None) or "").partition(".")[0]
    by = [
        one.install for one in FRAMEWORKS.values() if isinstance(error, ModuleNotFoundError) and missing in one.packages
    ]
    return f"; install it with: pip install {by[0]}" if by else ""


def _import_file(path: Path) -> types.ModuleType:
    # A name of its own: a file torch.py is not the module torch.
    path = path.resolve()
    name = f"{path.stem}__target"
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # As for a script; it stays, since functions import their neighbours when they are called, too.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise TargetError(f"{path.name}: its import raised {one_line(error)}{_installing(error)}") from error
    return module


def _attribute(text: str, module: types.ModuleType, location: Location) -> Any:
    found: Any = module
    for part in location.attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [name for name in dir(found) if not name.startswith("__")]
            near = difflib.get_close_matches(part, names, n=3) or [name for name in names if name[0] != "_"][:3]
            meant = f"; nearest: {', '.join(near)}" if near else ""
            raise TargetError(f"{text}: {location.place} has no attribute {part}{meant}") from None
        except BaseException as error:
            raise TargetError(f"{text}: reading {part} raised {one_line(error)}") from error
    return found


def frameworks_imported(text: str) -> tuple[str, ...]:
    """The packages of frameworks that the source of a target imports, read without running it.

    They can then be imported first: what they print and how long they take is not the target's doing.
    """
    found: dict[str, None] = {}
    for path in _sources(text):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # load says what is wrong
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found[node.module.partition(".")[0]] = None
    if not text.endswith(".onnx") and (root := text.partition(".")[0].partition(":")[0]) in _FRAMEWORK_OF:
        found[root] = None
    return tuple(name for name in found if name in _FRAMEWORK_OF)


def _sources(text: str) -> list[Path]:
    """The files that are run when a target is loaded: its own, and those of the packages that it is in."""
    try:
        location = parse(text)
        if location.kind != "module":
            return [Path(location.place)] if location.kind == "file" else []
        root, *parts = location.place.split(".")
        # The spec of a top-level name runs nothing; that of a submodule would import its parents.
        spec = importlib.util.find_spec(root)
    except (TargetError, ImportError, ValueError):
        return []
    if spec is None or root in _FRAMEWORK_OF:
        return []
    files = [Path(spec.origin)] if spec.origin else []
    folders = [Path(one) for one in spec.submodule_search_locations or ()]
    for part in parts:
        files += [
            path for one in folders for path in (one / f"{part}.py", one / part / "__init__.py") if path.is_file()
        ]
        folders = [one / part for one in folders]
    return [path for path in files if path.suffix == ".py"]


# The framework of a loaded target


def guess_framework(target: object, text: str = "the target") -> str:
    """The name of the adapter for a target: by its type, by where it is defined, or by what its code names.

    Raises:
        TargetError: its code names several frameworks.
    """
    if isinstance(target, Path):
        return "onnxruntime"
    if isinstance(target, Symbol):
        return "c"
    if own := _of_object(target):
        return own
    code = _functions(target)
    named = {name for fn in code for name in _named(fn, set())}
    beside = {name for fn in code for value in fn.__globals__.values() for name in _of_value(value)} - {"numpy"}
    if named == {"numpy"} and beside:
        others = " and ".join(sorted(beside))
        raise TargetError(f"{text}: its code names numpy and its file {others}; say which with --framework")
    found = sorted((named or beside) - {"numpy"})
    # Keras code may name its backend as well.
    if len(found) > 1:
        raise TargetError(f"{text}: its code names {' and '.join(found)}; say which with --framework")
    return found[0] if found else "numpy"


def _root(module: object) -> str:
    return _FRAMEWORK_OF.get(module.partition(".")[0], "") if isinstance(module, str) else ""


def _of_object(target: object) -> str:
    """The framework that defines an object or a base of its class, ``""`` where none does."""
    if isinstance(target, functools.partial):
        return _of_object(target.func)
    bases = target.__mro__ if isinstance(target, type) else type(target).__mro__
    roots = {_root(base.__module__) for base in bases} - {""}
    if "keras" in roots:  # a Keras layer is a torch module, too, on that backend
        return "keras"
    if roots:
        return sorted(roots)[0]
    owner = getattr(target, "__self__", None)  # torch.sigmoid is a method of a class of torch
    by_owner = "" if owner is None else _root(getattr(owner, "__module__", None)) or _root(type(owner).__module__)
    return _root(getattr(target, "__module__", None)) or by_owner or _root(getattr(owner, "__name__", None))


def _functions(target: object) -> list[types.FunctionType]:
    """The Python functions that a callable runs first."""
    while isinstance(target, functools.partial):
        target = target.func
    unwrapped = getattr(target, "__wrapped__", target)
    candidates = [unwrapped, getattr(unwrapped, "__func__", None)]
    cls = unwrapped if isinstance(unwrapped, type) else type(unwrapped)
    candidates += [vars(cls).get("__call__"), vars(cls).get("__init__")]
    return [one for one in candidates if isinstance(one, types.FunctionType)]


def _named(fn: types.FunctionType, seen: set[object]) -> Iterator[str]:
    """The frameworks that a function's code names, and those of the functions beside it that it calls."""
    if fn.__code__ in seen:
        return
    seen.add(fn.__code__)
    cells = [cell.cell_contents for cell in fn.__closure__ or () if _is_full(cell)]
    for value in (*(fn.__globals__[name] for name in _names(fn.__code__) if name in fn.__globals__), *cells):
        own = list(_of_value(value))
        yield from own
        if not own and isinstance(value, types.FunctionType):
            yield from _named(value, seen)


def _of_value(value: object) -> Iterator[str]:
    name = _root(value.__name__) if isinstance(value, types.ModuleType) else _of_object(value)
    if name:
        yield name


def _names(code: types.CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _is_full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True

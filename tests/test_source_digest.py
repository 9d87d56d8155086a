"""The digest of a backend's code: what does nothing leaves it as it is, what does something does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gated.conformance.backends import FORMS
from gated.conformance.source import code_digest, digest
from gated.contract import BACKENDS

CODE = '''\
"""A module."""
from math import exp

LIMIT = 700.5
"""Where it ends."""


class Curve:
    """A curve."""

    name: str = "swish"

    def __call__(self, x, beta=1):
        """x sigmoid(beta x)"""
        return x / (1 + exp(-beta * x)) if x > -LIMIT else -0.0


def text(x, width):
    return f"{x!r:>{width}} is" " x"
'''

# Fields of nodes, f-strings and what else Python 3.11, 3.12 and 3.13 build or print in different ways.
SYNTAX = '''\
x = 1; y = b"a"; z = "\\u00e9\\u200b\\U0001f9ff"; u = u"x"; n = 1e22, 0x10, 1_000, .1e-320, 1j, ..., None, True
a = f"{x}"; b = f"{x=}"; c = f"{x!r:>{y}}"; d = f"a" "b" f"{x}" 'c'; e = f""; g = f"{x:}"; h = f"{{}}{x}{{"
i = f"{'a' + 'b'}" f""; j = f"{x:%H:%M}{x}"
try:
    pass
except* ValueError as error:
    "remark"
match x:
    case {"a": None, **rest}: pass
    case [1, *_] | A(b=2): pass
async def f(a, /, b=1, *c, d: int = 2, **e) -> None:
    """doc"""
    async with a as b, c: pass
    return [i async for i in a if await i]
lambda *a, **k: (yield)
class A(B, metaclass=C):
    x: int
    y: int = 2
del x; global z
x[1:2, ::3]; x @= 2; not x; -x; ~x
'''


def of(code: str) -> str:
    return digest([("code.py", code.encode())])


def changed(old: str, new: str) -> str:
    assert CODE.count(old) == 1
    return CODE.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', ""),
        ('"""A curve."""', '"""Another text."""'),
        ('        """x sigmoid(beta x)"""\n', ""),
        ('"""Where it ends."""', '"""Where it ends: 700.5."""'),
        ("LIMIT = 700.5\n", "LIMIT = 700.5  # a reason\n"),
        ("import exp\n", "import exp\n\n\n# A comment.\n\n"),
        ("x / (1 + exp(-beta * x))", "x / (\n            1 + exp(-beta * x)\n        )"),
        ('f"{x!r:>{width}} is" " x"', "f'{x!r:>{width}} is x'"),
        ("700.5", "7.005e2"),
    ],
)
def test_what_does_nothing_leaves_it_as_it_is(old: str, new: str) -> None:
    assert of(changed(old, new)) == of(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("700.5", "700.6"),
        ("700.5", '"700.5"'),
        ("beta=1", "beta=1.0"),
        ("beta=1", "beta=None"),
        ("beta=1", "beta=0"),
        ("-0.0", "0.0"),
        ("x > -LIMIT", "x >= -LIMIT"),
        ("(1 + exp(-beta * x))", "(exp(-beta * x) + 1)"),
        ("from math", "from numpy"),
        ('"swish"', '""'),
        ("!r", "!s"),
        ("{width}", "{x}"),
        ("class Curve:", "@final\nclass Curve:"),
        ("        return x /", '        x = ""\n        return x /'),
    ],
)
def test_what_does_something_changes_it(old: str, new: str) -> None:
    assert of(changed(old, new)) != of(CODE)


def test_what_is_false_is_not_what_is_absent() -> None:
    falsehoods = ("None", "False", "0", "0.0", "0j", '""', 'b""', "()", "[]", "{}")
    assert len({of(f"x = {one}") for one in falsehoods}) == len(falsehoods)


def test_names_and_bounds_of_files_count() -> None:
    one, two = ("a.py", b"x = 1\ny = 2\n"), ("b.py", b"")
    digests = {
        digest(files)
        for files in (
            [one, two],
            [two, one],
            [one],
            [("c.py", one[1]), two],
            [("a.py", b"x = 1\n"), ("b.py", b"y = 2\n")],
        )
    }
    assert len(digests) == 5


def test_it_is_the_same_under_every_version_of_python() -> None:
    """Computed under 3.11.7, 3.12.1 and 3.13.0: results that one of them wrote are read by another."""
    assert of(SYNTAX) == "dd94b51fcebb9441c47ee70ccbc33cc17e17b1e46bc0e13b1816957e3aa03252"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_is_its_files_and_the_contract(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gated

    package = Path(gated.__file__).parent
    folder = BACKENDS[backend].module.removeprefix("gated.")
    files = ["contract.py", *(path.relative_to(package).as_posix() for path in (package / folder).rglob("*.py"))]
    assert any(name.endswith("units.py") for name in files)
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((package / name).read_bytes())
    before = code_digest(backend)
    assert {code_digest(form) for form in FORMS if FORMS[form] == backend} <= {before}
    monkeypatch.setattr(gated, "__file__", str(tmp_path / "__init__.py"))
    assert code_digest(backend) == before
    (tmp_path / "other.py").write_text("x = 1\n")
    assert code_digest(backend) == before
    for name in ("contract.py", f"{folder}/units.py", f"{folder}/deeper/new.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + "\nx = 1\n")
        after = code_digest(backend)
        assert after != before
        before = after

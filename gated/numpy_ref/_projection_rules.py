"""The derivatives of the projected forms, by the chain rule through their two or three matrix products.

With g = x W + b, v = x V + c, A the activation, h = A(g) v and y = h W2 + b2 (y = h without W2):

    dh = dy W2^T,   dg = dh A'(g) v,   dv = dh A(g)
    dx = dg W^T + dv V^T,   dW = x^T dg,   dV = x^T dv,   dW2 = h^T dy
    db = sum dg,   dc = sum dv,   db2 = sum dy,   dbeta = sum dh (dA/dbeta)(g) v
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gated.numpy_ref._arrays import Array, rounded, to_float64
from gated.numpy_ref._partials import IN_BETA, IN_X
from gated.numpy_ref._wide import Float64, wide
from gated.numpy_ref.activations import FORMULAS
from gated.numpy_ref.projections import by_rows, projected_rows, rows_of

__all__ = ["Projection"]

Operand = Array | float


@dataclass(frozen=True)
class Projection:
    """The arguments of a projected form; ``W2`` is None for the forms without a down projection."""

    x: Array
    W: Array
    V: Array
    W2: Array | None
    b: Array | None
    c: Array | None
    b2: Array | None
    activation: str
    beta: Operand

    def pull(self, cotangent: Array) -> dict[str, Array | None]:
        """The cotangent of every argument, None for an absent bias."""
        gate_shape = (*self.x.shape[:-1], self.W.shape[1])
        dtype = self.x.dtype
        dx = np.empty(self.x.shape, dtype)
        dw, dv = np.zeros(self.W.shape), np.zeros(self.V.shape)
        db, dc = np.zeros(self.W.shape[1]), np.zeros(self.W.shape[1])
        dbeta = _BetaSum(np.shape(self.beta), gate_shape)
        w, v = to_float64(self.W), to_float64(self.V)
        w2 = None if self.W2 is None else to_float64(self.W2)
        dw2 = np.zeros(() if w2 is None else w2.shape)
        db2 = np.zeros(cotangent.shape[-1])
        x_rows, dy_rows, dx_rows = by_rows(self.x), by_rows(cotangent), by_rows(dx)
        with np.errstate(all="ignore"):
            for rows, gate, value, beta in projected_rows(self.x, w, v, self.b, self.c, self.beta):
                x, dy = to_float64(x_rows[rows]), to_float64(dy_rows[rows])
                activated = FORMULAS[self.activation](gate, beta)
                dh = dy
                if w2 is not None:
                    dw2 += (activated * wide(value)).to_float64().T @ dy
                    db2 += dy.sum(axis=0)
                    dh = dy @ w2.T
                dgate = (wide(dh) * IN_X[self.activation](gate, beta) * wide(value)).to_float64()
                dvalue = (wide(dh) * activated).to_float64()
                dbeta.add(rows, (wide(dh) * IN_BETA[self.activation](gate, beta) * wide(value)).to_float64())
                dx_rows[rows] = rounded(dgate @ w.T + dvalue @ v.T, dtype)
                dw += x.T @ dgate
                dv += x.T @ dvalue
                db += dgate.sum(axis=0)
                dc += dvalue.sum(axis=0)
            sums = {"W": dw, "V": dv, "b": db, "c": dc, "W2": dw2, "b2": db2, "beta": dbeta.total()}
            return {"x": dx} | {
                name: None if getattr(self, name) is None else rounded(total, dtype) for name, total in sums.items()
            }

    def push(self, tangents: dict[str, Operand]) -> Array:
        """The tangent of the result for the tangents of some arguments."""
        gate_shape = (*self.x.shape[:-1], self.W.shape[1])
        zero = np.float64(0)
        dx_rows = by_rows(np.asarray(tangents["x"])) if "x" in tangents else None
        moved = {name: to_float64(one) for name, one in tangents.items() if name not in ("x", "beta")}
        w, v = to_float64(self.W), to_float64(self.V)
        w2 = None if self.W2 is None else to_float64(self.W2)
        width = self.W.shape[1] if w2 is None else w2.shape[1]
        out = np.empty((*self.x.shape[:-1], width), self.x.dtype)
        x_rows, out_rows = by_rows(self.x), by_rows(out)
        with np.errstate(all="ignore"):
            for rows, gate, value, beta in projected_rows(self.x, w, v, self.b, self.c, self.beta):
                x = to_float64(x_rows[rows])

                def moved_product(
                    weight: Float64, dweight: str, dbias: str, x: Float64 = x, rows: slice = rows
                ) -> Float64:
                    total = np.zeros((len(x), weight.shape[1])) + moved.get(dbias, zero)
                    if dx_rows is not None:
                        total += to_float64(dx_rows[rows]) @ weight
                    return total + x @ moved[dweight] if dweight in moved else total

                dgate, dvalue = moved_product(w, "W", "b"), moved_product(v, "V", "c")
                activated = FORMULAS[self.activation](gate, beta)
                dh = IN_X[self.activation](gate, beta) * wide(value) * wide(dgate) + activated * wide(dvalue)
                dbeta = rows_of(tangents.get("beta", 0.0), rows, gate_shape)
                dh += IN_BETA[self.activation](gate, beta) * wide(value) * wide(dbeta)
                dy = dh.to_float64()
                if w2 is not None:
                    dy = dy @ w2 + moved.get("b2", zero)
                    if "W2" in moved:
                        dy += (activated * wide(value)).to_float64() @ moved["W2"]
                out_rows[rows] = rounded(dy, out.dtype)
        return out


class _BetaSum:
    """The sum of a gate's terms down to beta's shape, a block of rows at a time."""

    def __init__(self, shape: tuple[int, ...], over: tuple[int, ...]) -> None:
        self._shape = shape
        self._over = over
        self._padded = (1,) * (len(over) - len(shape)) + shape
        self._sum = np.zeros(self._padded)

    def add(self, rows: slice, terms: Float64) -> None:
        if self._padded[-1] == 1:
            terms = terms.sum(axis=-1, keepdims=True)
        *leading, _ = self._over
        if all(size == 1 for size in self._padded[:-1]):
            self._sum += terms.sum(axis=0)
            return
        places = np.unravel_index(np.arange(*rows.indices(math.prod(leading))), leading)
        index = tuple(
            np.zeros_like(place) if size == 1 else place for place, size in zip(places, self._padded, strict=False)
        )
        np.add.at(self._sum, index, terms)

    def total(self) -> Float64:
        return self._sum.reshape(self._shape)

"""The derivatives of the projected forms, by the chain rule through their two or three matrix products.

With g = x W + b, v = x V + c, A the activation, h = A(g) v and y = h W2 + b2 (y = h without W2):

    dh = dy W2^T,   dg = dh A'(g) v,   dv = dh A(g)
    dx = dg W^T + dv V^T,   dW = x^T dg,   dV = x^T dv,   dW2 = h^T dy
    db = sum dg,   dc = sum dv,   db2 = sum dy,   dbeta = sum dh (dA/dbeta)(g) v

Each cotangent is a sum over rows or hidden columns. That is the inner loop of a pass of its own, so that the sum of one
block is done and rounded before the next begins; the price is that each pass computes the gates anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gated.numpy_ref._arrays import Array, rounded, to_float64
from gated.numpy_ref._pair import Float64
from gated.numpy_ref._partials import IN_BETA, IN_X
from gated.numpy_ref._projection_tiles import Operand, Tiles, bias, by_rows, rows_of, slices
from gated.numpy_ref._wide import Wide, wide
from gated.numpy_ref.activations import FORMULAS

__all__ = ["Projection"]


@dataclass(frozen=True)
class Projection(Tiles):
    """A projected form with its derivatives."""

    def pull(self, cotangent: Array) -> dict[str, Array | None]:
        """The cotangent of every argument, None for an absent one."""
        with np.errstate(all="ignore"):
            pulled = {"x": self._pull_x(cotangent), "beta": self._pull_beta(cotangent)} | self._pull_weights(cotangent)
            if self.b2 is not None:
                pulled["b2"] = self._pull_last_bias(cotangent)
        return {name: pulled.get(name) for name in ("x", "W", "V", "W2", "b", "c", "b2", "beta")}

    def _pull_hidden(self, cotangent: Array, rows: slice, columns: slice) -> Float64:
        """dh = dy W2^T."""
        if self.W2 is None:
            return rows_of(cotangent, rows, columns)
        return rows_of(cotangent, rows) @ to_float64(self.W2[columns]).T

    def _pull_gates(self, cotangent: Array, rows: slice, columns: slice) -> tuple[Float64, Float64, Float64]:
        """dg = dh A'(g) v and dv = dh A(g), and h for the weights behind it."""
        gate, value, beta = self.gates(rows, columns)
        dh = wide(self._pull_hidden(cotangent, rows, columns))
        activated = FORMULAS[self.activation](gate, beta)
        dgate = dh * IN_X[self.activation](gate, beta) * wide(value)
        return dgate.to_float64(), (dh * activated).to_float64(), (activated * wide(value)).to_float64()

    def _pull_x(self, cotangent: Array) -> Array:
        """dx = dg W^T + dv V^T."""
        out = np.empty(self.x.shape, self.x.dtype)
        for rows in self.row_blocks:
            dx = np.zeros(by_rows(out)[rows].shape)
            for columns in self.column_blocks:
                dgate, dvalue, _ = self._pull_gates(cotangent, rows, columns)
                dx += dgate @ to_float64(self.W[:, columns]).T
                dx += dvalue @ to_float64(self.V[:, columns]).T
            by_rows(out)[rows] = rounded(dx, out.dtype)
        return out

    def _pull_weights(self, cotangent: Array) -> dict[str, Array]:
        """dW = x^T dg, dV = x^T dv, dW2 = h^T dy, db = sum dg, dc = sum dv."""
        given = {"W": self.W, "V": self.V, "W2": self.W2, "b": self.b, "c": self.c}
        out = {name: np.empty(one.shape, one.dtype) for name, one in given.items() if one is not None}
        by_columns = {name: total.T if name == "W2" else total for name, total in out.items()}
        for columns in self.column_blocks:
            sums = {name: np.zeros(total[..., columns].shape) for name, total in by_columns.items()}
            for rows in self.row_blocks:
                dgate, dvalue, hidden = self._pull_gates(cotangent, rows, columns)
                x = rows_of(self.x, rows)
                sums["W"] += x.T @ dgate
                sums["V"] += x.T @ dvalue
                if self.W2 is not None:
                    sums["W2"] += rows_of(cotangent, rows).T @ hidden
                if self.b is not None:
                    sums["b"] += dgate.sum(axis=0)
                if self.c is not None:
                    sums["c"] += dvalue.sum(axis=0)
            for name, total in sums.items():
                by_columns[name][..., columns] = rounded(total, self.x.dtype)
        return out

    def _pull_last_bias(self, cotangent: Array) -> Array:
        """db2 = sum dy."""
        db2 = np.zeros(cotangent.shape[-1])
        for rows in self.row_blocks:
            db2 += rows_of(cotangent, rows).sum(axis=0)
        return rounded(db2, self.x.dtype)

    def _pull_beta(self, cotangent: Array) -> Array:
        """dbeta = sum dh (dA/dbeta)(g) v, over the axes of the gate along which beta is one number."""
        shape = np.shape(self.beta)
        *leading, width = (1,) * (len(self.shape) - len(shape)) + shape
        out = np.zeros((math.prod(leading), width), self.x.dtype)
        if self.activation == "swish":
            # The axes that beta has go first: then the rows that share a beta follow each other.
            axes = (*sorted(range(len(leading)), key=lambda axis: leading[axis] == 1), -1)
            beta = np.broadcast_to(np.asarray(self.beta), self.shape).transpose(axes)
            ordered = replace(self, x=self.x.transpose(axes), beta=beta)
            cotangent = cotangent.transpose(axes)
            for places, row_run in runs(len(out), self.size[0], self.steps[0]):
                for channels, column_run in runs(width, self.size[1], self.steps[1]):
                    total = ordered._sum_beta(cotangent, row_run, column_run, out[places, channels].shape)
                    out[places, channels] = rounded(total, out.dtype)
        return out.reshape(shape)

    def _sum_beta(self, cotangent: Array, row_run: slice, column_run: slice, shape: tuple[int, ...]) -> Float64:
        """The sum over equal parts of a run of rows and of one of columns, as many as ``shape`` says."""
        total = np.zeros(shape)
        for rows in slices(row_run, self.steps[0]):
            for columns in slices(column_run, self.steps[1]):
                gate, value, beta = self.gates(rows, columns)
                dh = wide(self._pull_hidden(cotangent, rows, columns))
                terms = (dh * IN_BETA[self.activation](gate, beta) * wide(value)).to_float64()
                parts = (shape[0], len(terms) // shape[0], shape[1], terms.shape[1] // shape[1])
                total += terms.reshape(parts).sum(axis=(1, 3))
        return total

    def push(self, tangents: dict[str, Operand]) -> Array:
        """The tangent of the result for the tangents of some arguments.

        dg = dx W + x dW + db, dv = dx V + x dV + dc, dh = A'(g) v dg + A(g) dv + (dA/dbeta)(g) v dbeta, and
        dy = dh W2 + h dW2 + db2.
        """
        moved = {name: np.asarray(tangent) for name, tangent in tangents.items()}
        out = np.empty(self.shape if self.W2 is None else (*self.shape[:-1], self.W2.shape[1]), self.x.dtype)
        with np.errstate(all="ignore"):
            for rows in self.row_blocks:
                dy = np.zeros(() if self.W2 is None else by_rows(out)[rows].shape)
                for columns in self.column_blocks:
                    dhidden, hidden = self._push_hidden(moved, rows, columns)
                    if self.W2 is None:
                        by_rows(out)[rows, columns] = rounded(dhidden, out.dtype)
                        continue
                    dy += dhidden @ to_float64(self.W2[columns])
                    if "W2" in moved:
                        dy += hidden @ to_float64(moved["W2"][columns])
                if self.W2 is not None:
                    by_rows(out)[rows] = rounded(dy + bias(moved.get("b2")), out.dtype)
        return out

    def _push_hidden(self, moved: dict[str, Array], rows: slice, columns: slice) -> tuple[Float64, Float64]:
        """dh, and h."""
        gate, value, beta = self.gates(rows, columns)

        def product(weight: Array, dweight: str, dbias: str) -> Wide:
            total = np.zeros(gate.shape)
            if "x" in moved:
                total += rows_of(moved["x"], rows) @ to_float64(weight[:, columns])
            if dweight in moved:
                total += rows_of(self.x, rows) @ to_float64(moved[dweight][:, columns])
            return wide(total + bias(moved.get(dbias), columns))

        dgate, dvalue = product(self.W, "W", "b"), product(self.V, "V", "c")
        activated = FORMULAS[self.activation](gate, beta)
        dh = IN_X[self.activation](gate, beta) * wide(value) * dgate + activated * dvalue
        if "beta" in moved and self.activation == "swish":
            dbeta = rows_of(np.broadcast_to(moved["beta"], self.shape), rows, columns)
            dh += IN_BETA[self.activation](gate, beta) * wide(value) * wide(dbeta)
        return dh.to_float64(), (activated * wide(value)).to_float64()


def runs(count: int, size: int, step: int) -> Iterator[tuple[slice, slice]]:
    """``size`` places as ``count`` runs of equal length, as many runs together as ``step`` holds, at least one.

    Yields:
        The runs of a block, and their places.
    """
    length = size // max(1, count)
    for block in slices(slice(0, count), max(1, step // max(1, length))):
        yield block, slice(block.start * length, block.stop * length)

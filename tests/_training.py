r"""Training a GatedFFN by gradient descent with momentum: the exact run, and how far a computed one may be from it.

A step on the loss :math:`L(\theta) = 2^{-k} \sum_i (y_i - t_i)^2`, with :math:`y = \mathrm{ffn}(x; \theta)`, is

.. math::
    m' = \mu m + \nabla L(\theta), \qquad \theta' = \theta - \eta m'.

:math:`\eta`, :math:`\mu` and :math:`2^{-k}` have few bits, so that every dtype has them, and the first and the last are
powers of two, which round nothing. A computed step has the errors

- of y: the rounding bound of the projected form at the computed weights (``gated.conformance.carried``);
- of the cotangent :math:`2^{1-k} (y - t)`: that of y, and u of it for the subtraction;
- of the gradient, for that cotangent: the rounding bound of the projected form again;
- of m': u of :math:`\mu m` and u of m'; of theta': u of theta'. (A fused multiply-add has less.)

Let :math:`\gamma` be what these add to m', by way of :math:`(\partial y / \partial \theta)^T` where they are the
cotangent's, and :math:`\rho` what they add to theta'. The difference e from the exact run, in (theta, m), obeys

.. math::
    e_m' = \mu e_m + H e_\theta + R + \gamma, \qquad e_\theta' = e_\theta - \eta e_m' + \rho,

with H the Hessian of L on the exact run and R the remainder of Taylor's formula. These maps are linear: each component
of e is at most the sum of the magnitudes of what they have made of every single error since the start. R is not
estimated, since the gradients at both weights are at hand; it is 0 in the first step, where the weights are the same,
and of second order in e. The exact run is in float64, by the reference, and its own rounding is counted likewise; the
rounding in the bounds themselves is not, ten digits down in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gated.numpy_ref as reference
from gated.conformance.carried import projection_bounds
from gated.conformance.error import FORMATS

__all__ = [
    "D_IN", "D_OUT", "HIDDEN", "MOMENTUM", "NAMES", "RATE", "SCALE", "SIZES", "STEPS", "Checked", "Run", "Step",
    "added_by", "checked", "data", "envelope", "exact_run", "flat", "hessians", "loss_bound", "start",
]  # fmt: skip

Float64 = NDArray[np.float64]

NAMES = ("W", "V", "W2", "b", "c", "b2", "beta")
ROWS, D_IN, HIDDEN, D_OUT = 16, 2, 4, 1
SHAPES = {
    "W": (D_IN, HIDDEN), "V": (D_IN, HIDDEN), "W2": (HIDDEN, D_OUT), "b": (HIDDEN,), "c": (HIDDEN,), "b2": (D_OUT,),
    "beta": (),
}  # fmt: skip
SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
STEPS = 150
RATE, MOMENTUM, SCALE = 2.0**-3, 0.75, 2.0**-4


def data() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x and the targets: a smooth function of two variables."""
    x = np.random.default_rng(1).uniform(-1.5, 1.5, (ROWS, D_IN)).astype(np.float32)
    target = np.sin(x[:, :1]) * x[:, 1:] + 0.5 * x[:, :1]
    return x, target.astype(np.float32)


def start() -> dict[str, NDArray[np.float32]]:
    """The weights that every run starts from; biases and momentum start at 0."""
    rng = np.random.default_rng(2)
    weights = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    for name in ("W", "V", "W2"):
        weights[name] = rng.normal(0, 0.7, SHAPES[name]).astype(np.float32)
    weights["beta"] = np.asarray(0.75, np.float32)
    return weights


def flat(weights: dict[str, Any]) -> Float64:
    return np.concatenate([np.asarray(weights[name], np.float64).ravel() for name in NAMES])


def unflat(vector: Float64) -> dict[str, Float64]:
    parts = np.split(vector, np.cumsum([SIZES[name] for name in NAMES])[:-1])
    return {name: part.reshape(SHAPES[name]) for name, part in zip(NAMES, parts, strict=True)}


@dataclass
class Step:
    """What a framework has before a step, what it computes, and what it has after: the vectors in float64."""

    theta: Float64
    m: Float64
    y: NDArray[Any]
    loss: float
    gradient: Float64
    theta_after: Float64
    m_after: Float64


Run = list[Step]


def exact(theta: Float64, activation: str) -> tuple[Float64, Callable[[Float64], Float64]]:
    """y in float64, and the pullback: cotangent of y -> gradient."""
    x, one = data()[0].astype(np.float64), unflat(theta)
    y, pullback = reference.vjp(reference.gated_ffn, x, *(one[name] for name in NAMES), activation=activation)
    return y, lambda cotangent: flat(dict(zip(NAMES, pullback(cotangent)[1:], strict=True)))


def jacobian(theta: Float64, activation: str) -> Float64:
    """dy/dtheta in float64, (rows, parameters)."""
    one, x = unflat(theta), data()[0].astype(np.float64)
    gate, value = x @ one["W"] + one["b"], x @ one["V"] + one["c"]
    slope, factor, in_beta = reference.vjp(
        reference.gated_unit, gate, np.ones_like(gate), np.broadcast_to(one["beta"], gate.shape), activation=activation
    )[1](np.ones_like(gate))  # fmt: skip
    assert slope is not None and factor is not None and in_beta is not None
    w2 = one["W2"][:, 0]
    by_b, by_c = w2 * slope * value, w2 * factor
    columns = {
        "W": x[:, :, None] * by_b[:, None], "V": x[:, :, None] * by_c[:, None], "W2": factor * value, "b": by_b,
        "c": by_c, "b2": np.ones((ROWS, 1)), "beta": (w2 * in_beta * value).sum(1),
    }  # fmt: skip
    return np.concatenate([columns[name].reshape(ROWS, -1) for name in NAMES], axis=1)


def exact_run(activation: str, steps: int = STEPS) -> Run:
    """The run in float64 by the reference."""
    theta, m = flat(start()), np.zeros(sum(SIZES.values()))
    run = []
    for _ in range(steps):
        y, pull = exact(theta, activation)
        gradient = pull(2 * SCALE * (y - data()[1]))
        m_after = MOMENTUM * m + gradient
        theta_after = theta - RATE * m_after
        loss = float(SCALE * np.sum((y - data()[1]) ** 2))
        run.append(Step(theta, m, y, loss, gradient, theta_after, m_after))
        theta, m = theta_after, m_after
    return run


def rounding(backend: str, dtype: str, theta: Float64, cotangent: Float64, activation: str) -> tuple[Float64, Float64]:
    """The rounding bounds of y and of the gradient."""
    one = unflat(theta)
    arguments: dict[str, Float64 | None] = {name: one[name] for name in NAMES if name != "beta"}
    arguments["x"] = data()[0].astype(np.float64)
    bounds = projection_bounds(backend, dtype, arguments, cotangent, activation=activation, beta=one["beta"])
    return bounds["value"], flat(bounds)


@dataclass
class Checked:
    """A computed step beside the exact one from the same weights."""

    errors: dict[str, Float64]
    bounds: dict[str, Float64]
    gradient: Float64
    """The exact gradient of the loss at its weights."""
    of_difference: Float64
    """The bound on the error of y - t."""
    gamma: Float64
    """The bound on what rounding adds to m'."""
    rho: Float64
    """The bound on what it adds to theta'."""


def checked(step: Step, backend: str, dtype: str, activation: str) -> Checked:
    """The errors of one step, part by part, and their bounds.

    The cotangent that the step gave to the pullback is known to the bit: a difference times a power of two.
    """
    u_exact = FORMATS["float64"].unit_roundoff
    u = FORMATS[dtype].unit_roundoff + u_exact
    target = data()[1]
    difference = (step.y - target.astype(step.y.dtype)).astype(np.float64)
    y, pull = exact(step.theta, activation)
    of_y, of_gradient = (
        ours + its
        for ours, its in zip(
            rounding(backend, dtype, step.theta, 2 * SCALE * difference, activation),
            rounding("numpy", "float64", step.theta, 2 * SCALE * difference, activation),
            strict=True,
        )
    )
    m = MOMENTUM * step.m + step.gradient
    loss = SCALE * np.sum(difference**2)
    bounds = {
        "y": of_y,
        # Each square is rounded, and meets n - 1 additions at most.
        "loss": np.asarray((difference.size + 1) * u * loss),
        "gradient": of_gradient,
        "momentum": u * (np.abs(MOMENTUM * step.m) + np.abs(step.m_after)) + u_exact * np.abs(m),
        "weights": u * np.abs(step.theta_after),
    }
    of_difference = of_y + u * np.abs(difference)
    of_cotangent = 2 * SCALE * of_difference.ravel()
    return Checked(
        errors={
            "y": step.y - y,
            "loss": np.asarray(step.loss - loss),
            "gradient": step.gradient - pull(2 * SCALE * difference),
            "momentum": step.m_after - m,
            "weights": step.theta_after - (step.theta - RATE * step.m_after),
        },
        bounds=bounds,
        gradient=pull(2 * SCALE * (y - target)),
        of_difference=of_difference,
        gamma=of_gradient + np.abs(jacobian(step.theta, activation)).T @ of_cotangent + bounds["momentum"],
        rho=bounds["weights"],
    )


def hessians(activation: str, run: Run) -> Float64:
    """Of the loss at the weights of a run, from the formula written plainly."""
    x, target = (torch.from_numpy(each).double() for each in data())

    def loss(theta: torch.Tensor) -> torch.Tensor:
        parts = torch.split(theta, list(SIZES.values()))
        W, V, W2, b, c, b2, beta = (part.reshape(SHAPES[name]) for name, part in zip(NAMES, parts, strict=True))
        gate = x @ W + b
        factor = {"swish": gate * torch.sigmoid(beta * gate), "gelu": gate * torch.erfc(-gate / 2**0.5) / 2}[activation]
        y = (factor * (x @ V + c)) @ W2 + b2
        return SCALE * ((y - target) ** 2).sum()

    thetas = torch.from_numpy(np.stack([step.theta for step in run]))
    return torch.func.vmap(torch.func.hessian(loss))(thetas).numpy()


def envelope(curvature: Float64, added: list[list[tuple[Float64, Float64]]]) -> list[list[Float64]]:
    """The bound on each component of theta after each step.

    Args:
        curvature: the Hessians of the loss on the exact run.
        added: for each bound that is wanted, what every step adds to m' and to theta'.
    """
    n = curvature.shape[-1]
    identity, none = np.eye(n), np.zeros((n, n))
    # What an error of 1 in m' or in theta' has become, in (theta, m), by column. They are scaled at the end.
    columns = np.zeros((2 * n, 2 * n * len(curvature)))
    sizes = [np.concatenate([part for step in one for part in step]) for one in added]
    bounds: list[list[Float64]] = [[] for _ in added]
    for t, hessian in enumerate(curvature):
        old, new = slice(0, 2 * n * t), slice(2 * n * t, 2 * n * (t + 1))
        to_m = np.concatenate([hessian, MOMENTUM * identity], axis=1)
        to_theta = np.concatenate([identity, none], axis=1) - RATE * to_m
        columns[:, old] = np.concatenate([to_theta, to_m]) @ columns[:, old]
        columns[:, new] = np.block([[-RATE * identity, identity], [identity, none]])
        magnitudes = np.abs(columns[:n, : new.stop])
        for bound, size in zip(bounds, sizes, strict=True):
            bound.append(magnitudes @ size[: new.stop])
    return bounds


def added_by(
    runs: list[list[Checked]], thetas: list[Run], along: Run, own: list[Checked], curvature: Float64
) -> list[tuple[Float64, Float64]]:
    """What a step of any of the runs adds to m' and theta', the remainder and the exact run's own rounding with it."""
    added = []
    for t, (here, ours) in enumerate(zip(along, own, strict=True)):
        steps = [(run[t], weights[t].theta) for run, weights in zip(runs, thetas, strict=True)]
        remainders = [np.abs(one.gradient - here.gradient - curvature[t] @ (at - here.theta)) for one, at in steps]
        gammas = [one.gamma + remainder for (one, _), remainder in zip(steps, remainders, strict=True)]
        # The reference's rounding thrice: in the exact run, and in the two gradients that the remainder is taken from.
        gamma, rho = np.max(gammas, axis=0) + 3 * ours.gamma, np.max([one.rho for one, _ in steps], axis=0) + ours.rho
        added.append((gamma, rho))
    return added


def loss_bound(step: Step, found: Checked, other: Step, off: Float64, activation: str) -> float:
    """On the difference of the loss of a step and of the exact run, the weights being off by ``off`` at most."""
    target = data()[1]
    y, _ = exact(step.theta, activation)
    rounded = np.sum((2 * np.abs(step.y - target) + found.of_difference) * found.of_difference)
    remainder = SCALE * np.sum((y - target) ** 2) - other.loss - other.gradient @ (step.theta - other.theta)
    return float(found.bounds["loss"] + SCALE * rounded + np.abs(other.gradient) @ off + abs(remainder))

"""torch, NNX and Linen train from the same weights: every step is one of the formula, and the runs stay together.

The bounds are derived in ``_training.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
torch = pytest.importorskip("torch")
optax = pytest.importorskip("optax")

import _training as training  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from _training import MOMENTUM, NAMES, RATE, SCALE, STEPS, Checked, Run, Step, flat  # noqa: E402
from flax import nnx  # noqa: E402

import gated.torch_impl.nn  # noqa: E402
from gated.jax_impl import linen  # noqa: E402
from gated.jax_impl import nnx as gated_nnx  # noqa: E402

BETA = float(training.start()["beta"])
ARGUMENTS = (training.D_IN, training.HIDDEN, training.D_OUT)


State = tuple[Any, Any, dict[str, Any], dict[str, Any], dict[str, Any]]


def run_of(states: Iterator[State]) -> Run:
    """A run, from what comes of each step: y, the loss, the gradient, the weights and the momentum, by name."""
    run, theta, m = [], flat(training.start()), np.zeros(sum(training.SIZES.values()))
    for y, loss, gradient, after, momentum in states:
        run.append(Step(theta, m, np.asarray(y), float(loss), flat(gradient), flat(after), flat(momentum)))
        theta, m = run[-1].theta_after, run[-1].m_after
    return run


def by_torch(dtype: str, steps: int = STEPS, rate: float = RATE, exchanged: bool = False, **settings: Any) -> Run:
    """With torch.optim.SGD."""
    settings = {"beta": BETA, "learn_beta": True, "bias": True, "dtype": getattr(torch, dtype)} | settings
    module = gated.torch_impl.nn.GatedFFN(*ARGUMENTS, **settings)
    projections = [module.gate_proj, module.up_proj, module.down_proj]
    if exchanged:
        projections[:2] = projections[1::-1]
    parameters = dict(
        zip(NAMES, [*(each.weight for each in projections), *(each.bias for each in projections)], strict=False)
    )
    parameters |= {"beta": module.beta} if settings["learn_beta"] else {}

    def named(part: Callable[[Any], Any], beta: float) -> dict[str, Any]:
        """A part of every parameter, as a copy; ``beta`` where beta is none."""
        found = {name: part(one).detach().numpy().T.copy() for name, one in parameters.items()}
        return {"beta": np.asarray(beta)} | found

    with torch.no_grad():
        for name, one in parameters.items():
            one.copy_(torch.tensor(training.start()[name].T))
    x, target = (torch.from_numpy(each).to(settings["dtype"]) for each in training.data())
    optimiser = torch.optim.SGD(module.parameters(), lr=rate, momentum=MOMENTUM)

    def states() -> Iterator[State]:
        for _ in range(steps):
            optimiser.zero_grad()
            y = module(x)
            loss = SCALE * (y - target).square().sum()
            loss.backward()
            optimiser.step()
            momentum = named(lambda one: optimiser.state[one]["momentum_buffer"], 0.0)
            yield y.detach(), loss.detach(), named(lambda one: one.grad, 0.0), named(lambda one: one, BETA), momentum

    return run_of(states())


def nested(weights: dict[str, Any]) -> dict[str, Any]:
    """The weights as the modules of Flax nest them."""
    nest: dict[str, Any] = {"beta": weights["beta"]}
    for child, *names in (("gate_proj", "W", "b"), ("up_proj", "V", "c"), ("down_proj", "W2", "b2")):
        nest[child] = dict(zip(("kernel", "bias"), (weights[name] for name in names), strict=True))
    return nest


def named(nest: Any) -> dict[str, Any]:
    gate, up, down = (nest[name] for name in ("gate_proj", "up_proj", "down_proj"))
    values = [
        *(each["kernel"] for each in (gate, up, down)),
        *(each["bias"] for each in (gate, up, down)),
        nest["beta"],
    ]
    return dict(zip(NAMES, values, strict=True))


def by_nnx(dtype: str) -> Run:
    """With nnx.Optimizer, nnx.jit and nnx.value_and_grad."""
    x, target = (jnp.asarray(each, dtype) for each in training.data())
    settings = {"beta": BETA, "learn_beta": True, "bias": True, "param_dtype": dtype}
    module = gated_nnx.GatedFFN(*ARGUMENTS, **settings, rngs=nnx.Rngs(0))
    nnx.update(module, jax.tree.map(lambda one: jnp.asarray(one, dtype), nested(training.start())))
    optimizer = nnx.Optimizer(module, optax.sgd(RATE, momentum=MOMENTUM), wrt=nnx.Param)

    @nnx.jit
    def step(module: Any, optimizer: Any) -> Any:
        def loss_of(module: Any) -> Any:
            y = module(x)
            return SCALE * ((y - target) ** 2).sum(), y

        (loss, y), gradient = nnx.value_and_grad(loss_of, has_aux=True)(module)
        optimizer.update(module, gradient)
        return y, loss, gradient

    def states() -> Iterator[State]:
        for _ in range(STEPS):
            y, loss, gradient = step(module, optimizer)
            momentum = nnx.to_pure_dict(nnx.state(optimizer.opt_state))[0]["trace"]
            yield (
                y,
                loss,
                *(named(nnx.to_pure_dict(one)) for one in (gradient, nnx.state(module, nnx.Param))),
                named(momentum),
            )

    return run_of(states())


def by_linen(dtype: str) -> Run:
    """With optax alone."""
    x, target = (jnp.asarray(each, dtype) for each in training.data())
    module = linen.GatedFFN(*ARGUMENTS, beta=BETA, learn_beta=True, bias=True, param_dtype=dtype)
    weights = jax.tree.map(lambda one: jnp.asarray(one, dtype), nested(training.start()))
    optimiser = optax.sgd(RATE, momentum=MOMENTUM)

    def loss_of(weights: Any) -> Any:
        y = module.apply({"params": weights}, x)
        return SCALE * ((y - target) ** 2).sum(), y

    @jax.jit
    def step(weights: Any, state: Any) -> Any:
        (loss, y), gradient = jax.value_and_grad(loss_of, has_aux=True)(weights)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(weights, updates), state, (y, loss, gradient)

    def states(weights: Any) -> Iterator[State]:
        state = optimiser.init(weights)
        for _ in range(STEPS):
            weights, state, (y, loss, gradient) = step(weights, state)
            yield y, loss, named(gradient), named(weights), named(state[0].trace)

    return run_of(states(weights))


@functools.cache
def exact(activation: str, steps: int) -> tuple[Run, list[Checked], Any]:
    """The exact run, its own rounding, and the Hessians on it."""
    run = training.exact_run(activation, steps)
    own = [training.checked(step, "numpy", "float64", activation) for step in run]
    return run, own, training.hessians(activation, run)


def bounds_along(activation: str, runs: dict[str, list[Run]], found: dict[str, list[list[Checked]]]) -> dict[str, Any]:
    """For each dtype, the bound on the distance of its runs from the exact one after every step."""
    along, own, curvature = exact(activation, len(next(iter(runs.values()))[0]))
    added = [training.added_by(found[dtype], runs[dtype], along, own, curvature) for dtype in runs]
    return dict(zip(runs, training.envelope(curvature, added), strict=True))


def leaves(run: Run, along: Run, bounds: list[Any]) -> int | None:
    """The step after which a run is further from another than the bound; None where there is none."""
    steps = enumerate(zip(run, along, bounds, strict=True), 1)
    return next(
        (t for t, (one, other, off) in steps if np.any(np.abs(one.theta_after - other.theta_after) > off)), None
    )


@functools.cache
def three_runs(dtype: str) -> tuple[dict[str, Run], dict[str, list[Checked]]]:
    """The runs of the three modules, and each of their steps beside the exact one."""
    with jax.enable_x64(dtype == "float64"):
        runs = {"torch": by_torch(dtype), "nnx": by_nnx(dtype), "linen": by_linen(dtype)}
    backends = {"torch": "torch", "nnx": "jax", "linen": "jax"}
    return runs, {
        name: [training.checked(step, backends[name], dtype, "swish") for step in run] for name, run in runs.items()
    }


@functools.cache
def bounds_of_three() -> dict[str, Any]:
    made = {dtype: three_runs(dtype) for dtype in ("float32", "float64")}
    runs = {dtype: list(each.values()) for dtype, (each, _) in made.items()}
    return bounds_along("swish", runs, {dtype: list(each.values()) for dtype, (_, each) in made.items()})


def test_torch_nnx_and_linen_stay_within_the_rounding_of_the_same_run() -> None:
    along, _, _ = exact("swish", STEPS)
    assert along[-1].loss < along[0].loss / 100
    for dtype, bounds in bounds_of_three().items():
        runs, found = three_runs(dtype)
        for name, run in runs.items():
            assert {step.y.dtype.name for step in run} == {dtype}
            for t, one in enumerate(found[name], 1):
                for part, error in one.errors.items():
                    assert np.all(np.abs(error) <= one.bounds[part]), f"{part} of step {t}, {name} in {dtype}"
            assert leaves(run, along, bounds) is None
            apart = training.loss_bound(run[-1], found[name][-1], along[-1], bounds[-2], "swish")
            assert abs(run[-1].loss - along[-1].loss) <= apart < along[-1].loss / 100


FAULTS: dict[str, dict[str, Any]] = {
    "a rate off by 1e-5": {"rate": RATE * (1 + 1e-5)},
    "gate and value exchanged": {"exchanged": True},
    "beta taken for 1": {"beta": 1.0, "learn_beta": False},
    "beta not learnt": {"learn_beta": False},
    "tanh for erf": {"activation": "gelu_tanh", "learn_beta": False},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_run_leaves_the_bounds_in_its_first_steps(fault: str) -> None:
    activation = "gelu" if fault == "tanh for erf" else "swish"
    run = by_torch("float32", 3, **FAULTS[fault])
    found = [training.checked(step, "torch", "float32", activation) for step in run]
    assert any(np.any(np.abs(error) > found[0].bounds[name]) for name, error in found[0].errors.items())
    bounds = bounds_along(activation, {"float32": [run]}, {"float32": [found]})
    assert leaves(run, exact(activation, 3)[0], bounds["float32"]) is not None


if __name__ == "__main__":
    for dtype, bounds in bounds_of_three().items():
        last = exact("swish", STEPS)[0][-1].theta_after
        for name, run in three_runs(dtype)[0].items():
            print(f"{dtype} {name:6} {np.max(np.abs(run[-1].theta_after - last)):.1e} of {np.max(bounds[-1]):.1e}")

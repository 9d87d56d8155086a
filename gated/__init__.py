"""gated: the yardstick for gated activations. Pick a backend by import::

    import gated.numpy_ref as G    # the definition
    import gated.torch_impl as G   # PyTorch
    import gated.jax_impl as G     # JAX

All three have the same functions with the same parameters. This module imports none of them.
"""

__all__ = ["BACKENDS", "__version__"]

__version__ = "0.1.0"

BACKENDS = ("numpy_ref", "torch_impl", "jax_impl")

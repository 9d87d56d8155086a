"""Targets of TensorFlow, right and wrong."""

from __future__ import annotations

import tensorflow as tf


def product(gate, value):
    return gate * value


compiled = tf.function(product)


def stopped(gate, value):
    return tf.stop_gradient(gate) * value


def gives_numpy(gate, value):
    return (gate * value).numpy()

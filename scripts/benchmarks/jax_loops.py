"""The digits sweep in JAX: `python jax_loops.py STEPS [--seeds 16] [--chunk 4] [--threads 2]`.

The same networks, sizes of splits, batches and numbers of runs as the sweep: `jit(vmap(...))` over runs of a
`lax.scan` over steps. It evaluates at the end, prints a table of test accuracies, and stores nothing. Compiling is
short because NumPy draws the initial weights. Chunks of 4 runs stay in the cache; they are trained in threads, as XLA
does not divide operations of this size among cores.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import distribution
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NORMS = ("none", "batch")
RATES = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15)
SIZES = (64, 64, 64, 64, 64, 10)
TRAIN, VALIDATION, BATCH = 1150, 287, 32
MOMENTUM, EPSILON = 0.1, 1e-5

Tree = Any
"""Arrays in lists and dictionaries."""


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Standardized images [N, 64] in random order, and their labels [N]."""
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.random.default_rng(0).permutation(np.loadtxt(str(path), delimiter=",", dtype=np.float32))
    x, y = table[:, :-1], table[:, -1].astype(np.int32)
    return (x - x[:TRAIN].mean()) / x[:TRAIN].std(), y


def draw_order(seed: int, steps: int) -> np.ndarray:
    """The images of each batch [steps, BATCH]; each epoch takes them in a new order."""
    draw, per_epoch = np.random.default_rng(seed), TRAIN // BATCH
    epochs = [draw.permutation(TRAIN)[: per_epoch * BATCH] for _ in range(-(-steps // per_epoch))]
    return np.concatenate(epochs).astype(np.int32).reshape(-1, BATCH)[:steps]


def draw_weights(seed: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(seed)
    return [
        {
            "weight": (draw.standard_normal((n_in, n_out)) * (2 / n_in) ** 0.5).astype(np.float32),
            "shift": np.zeros(n_out, np.float32),
            "scale": np.ones(n_out, np.float32),
        }
        for n_in, n_out in pairwise(SIZES)
    ]


def forward(norm: str, layers: Tree, running: Tree, x: jax.Array, trains: bool) -> tuple[jax.Array, Tree]:
    """Logits [B, 10] and the new running statistics."""
    *hidden, out = layers
    updated = []
    for layer, (mean, variance) in zip(hidden, running, strict=True):
        x = x @ layer["weight"]
        if norm == "batch":
            if trains:
                m, v = x.mean(0), x.var(0)
                unbiased = v * BATCH / (BATCH - 1)
                updated.append((mean + MOMENTUM * (m - mean), variance + MOMENTUM * (unbiased - variance)))
                mean, variance = m, v
            x = (x - mean) * (jax.lax.rsqrt(variance + EPSILON) * layer["scale"])
        x = jax.nn.relu(x + layer["shift"])
    return x @ out["weight"] + out["shift"], updated or running


def loss(norm: str, layers: Tree, running: Tree, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Tree]:
    logits, running = forward(norm, layers, running, x, trains=True)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean(), running


def train(norm: str, x: jax.Array, y: jax.Array, rate: jax.Array, layers: Tree, order: jax.Array) -> jax.Array:
    """Train one run; returns its accuracies on the validation and test splits."""

    def step(state: Tree, index_B: jax.Array) -> tuple[Tree, None]:
        layers, running = state
        gradients, running = jax.grad(partial(loss, norm), has_aux=True)(layers, running, x[index_B], y[index_B])
        return (jax.tree.map(lambda p, g: p - rate * g, layers, gradients), running), None

    start = [(jnp.zeros(n), jnp.ones(n)) for n in SIZES[1:-1]]
    (layers, running), _ = jax.lax.scan(step, (layers, start), order)
    logits, _ = forward(norm, layers, running, x[TRAIN:], trains=False)
    right = logits.argmax(1) == y[TRAIN:]
    return jnp.stack([right[:VALIDATION].mean(), right[VALIDATION:].mean()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", type=int)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--chunk", type=int, default=4, help="runs of one program")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="programs at a time")
    options = parser.parse_args()
    x, y = (jnp.asarray(array) for array in read_digits())
    rates = np.repeat(np.float32(RATES), options.seeds)
    seeds = list(range(options.seeds))
    weights = jax.tree.map(
        lambda *each: np.tile(np.stack(each), (len(RATES),) + (1,) * each[0].ndim), *map(draw_weights, seeds)
    )
    orders = np.tile(np.stack([draw_order(seed, options.steps) for seed in seeds]), (len(RATES), 1, 1))
    places = [slice(i, i + options.chunk) for i in range(0, len(rates), options.chunk)]
    with ThreadPoolExecutor(options.threads) as threads:
        for norm in NORMS:
            program = jax.jit(jax.vmap(partial(train, norm, x, y)))
            chunks = [
                jax.tree.map(lambda array, place=place: array[place], (rates, weights, orders)) for place in places
            ]
            compiled = program.lower(*chunks[0]).compile()
            done = threads.map(lambda chunk, run=compiled: np.asarray(run(*chunk)), chunks)
            accuracy = np.concatenate(list(done))[:, 1].reshape(len(RATES), options.seeds).mean(1)
            print(norm, *(f"lr={rate:g}: {value:.3f}" for rate, value in zip(RATES, accuracy, strict=True)), sep="  ")


if __name__ == "__main__":
    main()

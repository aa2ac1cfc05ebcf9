"""The random numbers of the sandbox: seeded, so that the same seed makes the same world everywhere."""

import random

__all__ = ["make_rng"]


def make_rng(*seed: object) -> random.Random:
    """Return a generator that depends only on the words of `seed`, on every platform and in every process."""
    return random.Random(":".join(map(str, seed)))  # noqa: S311 - a reproducible world, not a secret

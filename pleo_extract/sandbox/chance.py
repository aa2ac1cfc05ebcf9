"""Where the sandbox's luck comes from: seeded, so that a world can be drawn again anywhere."""

import random

__all__ = ["chance"]


def chance(*seed: object) -> random.Random:
    """A generator that depends on the words of `seed` alone, on every platform and in every process."""
    return random.Random(":".join(map(str, seed)))  # noqa: S311 - a reproducible world, not a secret

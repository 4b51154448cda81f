"""One seed for a whole run: seeds of parts that were left open follow `--seed_everything`.

They become numbers before anything is built, so that the saved configuration holds what ran, and a resumed run draws
what the interrupted one would have drawn.
"""

from __future__ import annotations

from jsonargparse import Namespace

_FOLLOWING = ("model.init_args.sampling.seed", "data.init_args.seed")


def fill_seeds(config: Namespace) -> None:
    """Set every seed that is null to the seed of the run.

    Args:
        config: Settings of one command, changed in place. Seeds that a number was given for stay, and so does
            everything when `seed_everything` is false.
    """
    seed = config.get("seed_everything")
    if seed is None or isinstance(seed, bool):
        return
    for key in _FOLLOWING:
        if key in config and config[key] is None:
            config[key] = seed

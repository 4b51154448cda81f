"""Keeps `--rewards` honest: flags may change, add or remove a term, but not one that the run does not have.

A mapping accepts any key, so that `--rewards.lenght null` alone would parse, remove nothing and say nothing. What the
run has is what its configuration files describe; the parser is asked for that by leaving the reward flags out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_modules.cli_messages import suggestion

_PREFIX = "--rewards."
_NOTHING = ("null", "none", "~", "")


@dataclass(frozen=True)
class RewardFlag:
    """One `--rewards.<term>...` of a command line.

    Attributes:
        term: Name of the reward term.
        setting: What is set of it, dotted; empty when the term itself is given or removed.
        value: The given value; empty when there is none.
    """

    term: str
    setting: str
    value: str

    @property
    def names_class(self) -> bool:
        """True when the flag says what the term is, which also adds it."""
        return self.setting == "class_path" or (self.setting == "" and self.value.lower() not in _NOTHING)


def reward_flags(arguments: Sequence[str]) -> list[RewardFlag]:
    """The reward flags of a command line, in order."""
    return [flag for flag, _ in _split(arguments) if flag is not None]


def without_reward_flags(arguments: Sequence[str]) -> list[str]:
    """The command line as it describes the run before its reward flags, and without a wish to print it."""
    rest = [token for flag, tokens in _split(arguments) if flag is None for token in tokens]
    return [token for token in rest if not token.startswith("--print_config")]


def problem(flags: Sequence[RewardFlag], known: Sequence[str]) -> str:
    """What is wrong with the reward flags.

    Args:
        flags: In the order given; an earlier one may add the term that a later one sets.
        known: Terms that the run has without them.

    Returns:
        One line that names the term, those that there are and the nearest; empty when all flags fit.
    """
    terms = list(known)
    for flag in flags:
        if flag.names_class:
            terms.append(flag.term)
        elif flag.term not in terms:
            listed = ", ".join(dict.fromkeys(terms)) or "none"
            hint = suggestion(flag.term, terms).removeprefix("; ").capitalize()
            return (
                f"rewards.{flag.term}: this run has no such reward; it has {listed}. "
                f"{hint or f'To add one, give its class first: --rewards.{flag.term} my_pkg.MyReward.'}"
            )
    return ""


def _split(arguments: Sequence[str]) -> Iterator[tuple[RewardFlag | None, list[str]]]:
    """Cut a command line into flags with their values; the flag is None where it is about something else."""
    position = 0
    while position < len(arguments):
        token = arguments[position]
        if not token.startswith(_PREFIX) or token.endswith(".help"):
            yield None, [token]
            position += 1
            continue
        name, has_value, value = token.partition("=")
        taken = 1
        if not has_value and position + 1 < len(arguments) and not arguments[position + 1].startswith("--"):
            value, taken = arguments[position + 1], 2
        term, _, setting = name.removeprefix(_PREFIX).partition(".")
        yield RewardFlag(term, setting.removeprefix("init_args."), value), list(arguments[position : position + taken])
        position += taken

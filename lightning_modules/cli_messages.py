"""Turns the argument parser's error trees into one line: the key, what is wrong, the nearest valid key.

jsonargparse reports a wrong setting of a class as an indented tree of everything it tried, ten lines and more. This
module reads that text, keeps the branch that got furthest, and knows which keys and classes would have been valid
there. It parses nothing itself, and a message in a form that it does not know is passed on in one line as it is.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from jsonargparse import ArgumentParser

_SKIPPED = re.compile(
    r"^(Does not validate against any of|Errors:|Given value type:|Given value:|Expected a <class 'NoneType'>$"
    r"|Expected a path but .* either not accessible|$)"
)
_KEY = re.compile(r'^Parser key "(?P<key>[^"]+)":\s*(?P<rest>.*)$')
_CLASS = re.compile(r"^Problem with given class_path '(?P<path>[^']+)':\s*(?P<rest>.*)$")
_UNKNOWN_KEY = (
    re.compile(r"^Option '(?P<key>[^']+)' is not accepted"),
    re.compile(r"^Group '(?P<group>[^']+)' does not accept option '(?P<key>[^']+)'"),
    re.compile(r"^Subcommand '[^']+' does not accept option '(?P<key>[^']+)'"),
    re.compile(r"^unrecognized arguments: -*(?P<key>[^\s=]+)"),
)
_UNKNOWN_CLASS = (
    re.compile(r"^Expected a dot import path string: (?P<name>\S+)"),
    re.compile(r"^module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'"),
    re.compile(r"^No module named '(?P<name>[^']+)'"),
)
_BAD_VALUE = re.compile(r"^Expected an? (?P<type>.+?)(?:\. Got value: (?P<value>.*))?$")
_REQUIRED = re.compile(r"^the following arguments are required: (?P<keys>.+)$")


@dataclass(frozen=True)
class Leaf:
    """One thing that the parser found wrong.

    Attributes:
        keys: Keys on the way to it, outermost first.
        owner: Dotted path of the innermost class whose setting it is; empty at the top level.
        types: The types that were tried there, as the parser prints them.
        value: The given value as the parser prints it; empty when it does not.
        text: The parser's own words.
    """

    keys: tuple[str, ...]
    owner: str
    types: str
    value: str
    text: str


def one_line(message: str, known_keys: Sequence[str], arguments: Sequence[str] = ()) -> str:
    """Reduce a parser message to one line.

    Args:
        message: What jsonargparse would print after its usage text.
        known_keys: Dotted keys that are valid at the top level.
        arguments: The command line, to name a nested key in full where the message does not.

    Returns:
        The key, what is wrong and, when something similar is valid, what was probably meant.
    """
    plain = _plain(message, arguments)
    if plain:
        return plain
    leaves = _leaves(message)
    if not leaves:
        return _squeeze(message)
    furthest = max(len(leaf.keys) + bool(leaf.owner) for leaf in leaves)
    chosen = [leaf for leaf in leaves if len(leaf.keys) + bool(leaf.owner) == furthest]
    for describe in (_unknown_key, _unknown_class, _missing):
        line = next((text for leaf in chosen if (text := describe(leaf, known_keys, arguments))), "")
        if line:
            return line
    return _bad_value(chosen)


def suggestion(word: str, valid: Sequence[str]) -> str:
    """The ending ``; did you mean `...`?`` for the most similar valid word, or nothing when none is similar."""
    near = difflib.get_close_matches(word, valid, n=1, cutoff=0.75)
    if not near:
        # A right name at a wrong place: `model.beta` for `model.grpo.beta`.
        tail = word.rpartition(".")[2]
        near = [key for key in valid if key.rpartition(".")[2] == tail][:1]
    if not near:
        heads = sorted({key.partition(".")[0] for key in valid})
        head = word.partition(".")[0]
        near = [] if head in heads else difflib.get_close_matches(head, heads, n=1, cutoff=0.75)
    return f"; did you mean `{near[0]}`?" if near else ""


def class_keys(class_path: str) -> list[str]:
    """Dotted names of a class's settings, those of nested records included; empty when it cannot be imported."""
    owner = _import(class_path)
    if not isinstance(owner, type):
        return []
    parser = ArgumentParser()
    parser.add_class_arguments(owner, fail_untyped=False)
    return list(map(str, parser.get_defaults().keys()))


def _plain(message: str, arguments: Sequence[str]) -> str:
    """Messages that are no tree: the verb, a flag without its value, a file that is missing or no YAML."""
    verb = re.search(r"invalid choice: '([^']*)' \(choose from (.*?)\)", message)
    if verb and message.startswith("argument subcommand"):
        verbs = re.findall(r"\w+", verb.group(2))
        return f"`{verb.group(1)}` is none of {', '.join(verbs)}{suggestion(verb.group(1), verbs)}"
    if message.startswith('expected "subcommand"'):
        return "say what to do first: fit, validate, test or predict; for example `fit --config configs/refavs.yaml`"
    bare = re.match(r"argument --(\S+): expected one argument", message)
    if bare:
        flags = [flag for flag, after in zip(arguments, [*arguments[1:], "--"], strict=False) if after.startswith("--")]
        named = [flag for flag in flags if flag.startswith(f"--{bare.group(1)}")]
        return f"{(named or ['--' + bare.group(1)])[0]} needs a value"
    missing = re.search(r"File does not exist: '([^']+)'", message)
    if missing:
        files = [str(path) for path in Path("configs").rglob("*.yaml")]
        return f"there is no file {missing.group(1)}{suggestion(os.path.relpath(missing.group(1)), files)}"
    return _squeeze(message) if message.startswith("Problems parsing config") else ""


def _leaves(message: str) -> list[Leaf]:
    """Walk the indented tree; what is nested is indented, so a stack of open branches is enough."""
    stack: list[tuple[int, str, str]] = []
    leaves: list[Leaf] = []
    for line in message.splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if text.startswith("- "):
            text, indent = text[2:].strip(), indent + 2
        if not text:
            continue
        stack = [branch for branch in stack if branch[0] < indent]
        opened = _KEY.match(text) or _CLASS.match(text)
        if opened:
            kind = "key" if opened.re is _KEY else "class"
            stack.append((indent, kind, opened.group(1)))
            text = opened.group("rest")
        elif text.startswith("Subtypes:"):
            stack.append((indent - 1, "types", text.removeprefix("Subtypes:").strip()))
        elif text.startswith("Given value: ") and leaves and not leaves[-1].value:
            leaves = _with_value(leaves, _names(stack, "key"), text.removeprefix("Given value: "))
        if (not opened and text.startswith("Subtypes:")) or _SKIPPED.match(text):
            continue
        owner, types = _names(stack, "class"), _names(stack, "types")
        leaves.append(Leaf(_names(stack, "key"), owner[-1] if owner else "", types[-1] if types else "", "", text))
    return leaves


def _names(stack: Sequence[tuple[int, str, str]], kind: str) -> tuple[str, ...]:
    return tuple(name for _, branch, name in stack if branch == kind)


def _with_value(leaves: Sequence[Leaf], keys: tuple[str, ...], value: str) -> list[Leaf]:
    """Give the value that a branch reports at its end to the leaves of that branch."""
    return [
        Leaf(leaf.keys, leaf.owner, leaf.types, value, leaf.text) if leaf.keys == keys and not leaf.value else leaf
        for leaf in leaves
    ]


def _unknown_key(leaf: Leaf, known_keys: Sequence[str], arguments: Sequence[str]) -> str:
    match = next((found for pattern in _UNKNOWN_KEY if (found := pattern.match(leaf.text))), None)
    if match is None:
        return ""
    groups = match.groupdict()
    name = ".".join(part for part in (groups.get("group"), groups["key"].lstrip("-")) if part)
    prefix = ".".join(leaf.keys)
    full = _full_key(prefix, name, arguments)
    where = full.removesuffix(name).rstrip(".") or prefix
    valid = [f"{where}.{key}" for key in class_keys(leaf.owner)] if leaf.owner else list(known_keys)
    short = leaf.owner.rpartition(".")[2]
    what = f"is no setting of {short}" if short else "is no setting"
    return f"{full} {what}{suggestion(full, valid)}"


def _full_key(prefix: str, name: str, arguments: Sequence[str]) -> str:
    """The key as the user typed it; the parser leaves out the name of an entry of a mapping."""
    if not prefix:
        return name
    for argument in arguments:
        flag = argument.partition("=")[0].removeprefix("--")
        if flag.startswith(f"{prefix.partition('.')[0]}.") and flag.endswith(f".{name}"):
            return flag.replace(".init_args.", ".")
    return f"{prefix}.{name}"


def _unknown_class(leaf: Leaf, known_keys: Sequence[str], arguments: Sequence[str]) -> str:
    match = next((found for pattern in _UNKNOWN_CLASS if (found := pattern.match(leaf.text))), None)
    if match is None:
        return ""
    groups = match.groupdict()
    name = f"{groups['module']}.{groups['name']}" if groups.get("module") else groups["name"]
    valid = _subclass_names(leaf.types, arguments)
    if groups.get("module"):
        valid = [f"{groups['module']}.{entry}" for entry in dir(import_module(groups["module"]))]
    hint = suggestion(name, valid) or ". Loaded classes go by their name, any other by its dotted path."
    return f"{'.'.join(leaf.keys)}: there is no class `{name}`{hint}"


def _subclass_names(types: str, arguments: Sequence[str]) -> list[str]:
    """Short names of every loaded class that could stand there."""
    names: list[str] = []
    pending = [_import(path) for path in re.findall(r"<class '([\w.]+)'>", types)]
    while pending:
        current = pending.pop()
        if isinstance(current, type) and current.__module__ != "builtins":
            names.append(current.__name__)
            pending.extend(current.__subclasses__())
    return names


def _missing(leaf: Leaf, known_keys: Sequence[str], arguments: Sequence[str]) -> str:
    match = _REQUIRED.match(leaf.text)
    if match is None:
        return ""
    names = [".".join((*leaf.keys, name)) for name in match.group("keys").split(", ")]
    owner = f" by {leaf.owner.rpartition('.')[2]}" if leaf.owner else ""
    if not leaf.owner and "--config" not in " ".join(arguments):
        missing = " and ".join(name.rpartition(".")[2] for name in names)
        return f"no {missing} given. Name a run, for example --config configs/refavs.yaml"
    return f"{' and '.join(names)} required{owner}, but not given"


def _bad_value(leaves: Sequence[Leaf]) -> str:
    """A value of the wrong type or outside its choices; all types that were tried are listed."""
    first = leaves[0]
    key = ".".join(first.keys)
    matches = [match for leaf in leaves if (match := _BAD_VALUE.match(leaf.text))]
    if not matches:
        return f"{key}: {_squeeze(first.text)}" if key else _squeeze(first.text)
    value = next((match.group("value") for match in matches if match.group("value")), first.value)
    nested = re.match(r"NestedArg\(key='[^']*', val='?(.*?)'?\)$", value)
    value = nested.group(1) if nested else value
    wanted = " or ".join(dict.fromkeys(_readable(match.group("type")) for match in matches))
    choices = re.findall(r"'([^']+)'", " ".join(match.group("type") for match in matches if "Literal" in match[0]))
    return f"{key} is {value or 'not usable'}, expected {wanted}{suggestion(value, choices) if value else ''}"


def _readable(printed_type: str) -> str:
    if printed_type.startswith("typing.Literal["):
        return "one of " + printed_type.removeprefix("typing.Literal[").rstrip("]")
    match = re.match(r"<class '(?:[\w.]*\.)?(\w+)'>$", printed_type)
    return match.group(1) if match else printed_type


def _import(path: str) -> object:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name, None) if module else None
    except ImportError:
        return None


def _squeeze(text: str, limit: int = 400) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]} ..."

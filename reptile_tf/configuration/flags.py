"""The command line's flags: absl flags made from a Config, and their help."""

import dataclasses
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from reptile_tf.configuration import flagfiles
from reptile_tf.configuration.config import Config
from reptile_tf.errors import InputError

# A list of these makes a run of each combination.
LISTS = ("algorithm", "seed")


class _OneOrMore(flags.ArgumentParser):
    """A tuple of what `one` parses, with commas between them."""

    def __init__(self, one: flags.ArgumentParser) -> None:
        self._one = one

    def parse(self, argument: Any) -> tuple:
        values = tuple(map(self._one.parse, str(argument).split(",")))
        if len(set(values)) < len(values):
            raise ValueError("a value is there twice")
        return values


def define(config: type[Config], defaults: Mapping[str, Any]
           ) -> flags.FlagValues:
    """A data set's flags, with these defaults, and no others."""
    values = flags.FlagValues()
    for field in dataclasses.fields(config):
        default = defaults.get(field.name, field.default)
        text, choices = field.metadata["help"], field.metadata["choices"]
        if field.name in LISTS:
            one = (flags.EnumParser(choices) if choices
                   else flags.IntegerParser())
            flags.DEFINE(_OneOrMore(one), field.name, str(default), text,
                         values)
        elif choices:
            flags.DEFINE_enum(field.name, default, choices, text, values)
        elif isinstance(default, bool) or default is None:
            flags.DEFINE_boolean(field.name, default, text, values)
        elif isinstance(default, int):
            flags.DEFINE_integer(field.name, default, text, flag_values=values)
        elif isinstance(default, float):
            flags.DEFINE_float(field.name, default, text, flag_values=values)
        elif isinstance(default, tuple):
            flags.DEFINE_string(field.name, ",".join(map(str, default)), text,
                                values)
        else:
            flags.DEFINE_string(field.name, default, text, values)
    flags.DEFINE_boolean("help", False, "show this", values, short_name="h")
    return values


def help_text(script: str, config: type[Config], values: flags.FlagValues,
              hidden: Collection[str] = ()) -> str:
    """All flags but the hidden with default, choices, unit and symbol."""
    command = script if script.startswith("reptile-") else f"python {script}"
    lines = [f"usage: {command} [--flagfile=FILE] [--flag=value ...]", ""]
    for field in dataclasses.fields(config):
        if field.name in hidden:
            continue
        flag, choices = values[field.name], field.metadata["choices"]
        kind = f" {{{','.join(choices)}}}" if choices else ""
        default = flag.default_unparsed
        default = {None: "unset", "": "empty"}.get(default, default)
        lines += [f"  --{field.name}{kind}",
                  f"      {flag.help} (default: {default})"]
    return "\n".join(lines)


def parse(
    argv: Sequence[str],
    config: type[Config],
    defaults: Mapping[str, Any],
    by_algorithm: Mapping[str, Mapping[str, Any]] | None = None,
    hidden: Collection[str] = (),
) -> Config | None:
    """The frozen Config of a command line; None if --help was asked for.

    Args:
      argv: the script's name and its arguments.
      config: the data set's Config.
      defaults: values that differ from its own defaults.
      by_algorithm: further ones that depend on --algorithm.
      hidden: flags that --help leaves out.

    Raises:
      InputError: an unknown flag, a value out of range, or a list where
        there is one run.
    """
    values = _read(argv, config, defaults)
    if by_algorithm:  # Which --algorithm says, so that it is read first.
        values = _read(argv, config, {
            **defaults, **by_algorithm.get(values.algorithm[0], {})})
    if values.help:
        print(help_text(Path(argv[0]).name, config, values, hidden))
        return None
    chosen = {}
    for field in dataclasses.fields(config):
        value = values[field.name].value
        if field.name in LISTS:
            if len(value) > 1:
                raise InputError(
                    f"{field.name}={','.join(map(str, value))} is a list, "
                    "and this is one run: give one value")
            value, = value
        elif isinstance(field.default, tuple):
            value = _numbers(field.name, value, field.default)
        elif field.metadata["path"]:
            value = os.path.expanduser(value)
        chosen[field.name] = value
    result = config(**chosen)
    result.check()
    return result


def runs(argv: Sequence[str], config: type[Config],
         defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """--algorithm and --seed of each run that a command line asks for.

    Raises:
      InputError: an unknown flag or a value out of range.
    """
    values = _read(argv, config, defaults)
    return [dict(zip(LISTS, values_of_run, strict=True))
            for values_of_run in itertools.product(
        *(values[name].value for name in LISTS))]


def given(argv: Sequence[str], config: type[Config],
          defaults: Mapping[str, Any]) -> set[str]:
    """The flags that a command line has, its flagfiles' included.

    Raises:
      InputError: an unknown flag or a value out of range.
    """
    values = _read(argv, config, defaults)
    return {name for name in values if values[name].present}


def _read(argv: Sequence[str], config: type[Config],
          defaults: Mapping[str, Any]) -> flags.FlagValues:
    values = define(config, defaults)
    try:
        rest = values(flagfiles.resolved(argv))[1:]
    except (flags.Error, OSError, UnicodeError) as e:
        raise InputError(f"{str(e).strip()} (--help lists the flags)") from e
    if rest:
        raise InputError(f"{rest[0]!r} is not a flag: flags start with --")
    return values


def _numbers(name: str, text: str, default: tuple) -> tuple:
    if not text and not default:
        return ()
    kind = type(default[0]) if default else float
    try:
        return tuple(kind(v) for v in text.split(","))
    except ValueError as e:
        form = ("whole numbers, such as 5 or 1,5" if kind is int
                else "numbers, such as 0.1,5")
        raise InputError(f"{name}={text!r} must be {form}") from e

"""The command line: absl flags made from a Config, and their help."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from reptile_tf.config import Config
from reptile_tf.errors import InputError


def define(config: type[Config], defaults: Mapping[str, Any]
           ) -> flags.FlagValues:
    """A data set's flags, with these defaults, and no others."""
    values = flags.FlagValues()
    for field in dataclasses.fields(config):
        default = defaults.get(field.name, field.default)
        text, choices = field.metadata["help"], field.metadata["choices"]
        if choices:
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


def help_text(script: str, config: type[Config], values: flags.FlagValues
              ) -> str:
    """All flags with default, choices, unit and symbol."""
    lines = [f"usage: python {script} [--flagfile=FILE] [--flag=value ...]", ""]
    for field in dataclasses.fields(config):
        flag, choices = values[field.name], field.metadata["choices"]
        kind = f" {{{','.join(choices)}}}" if choices else ""
        default = {None: "unset", "": "empty"}.get(flag.default, flag.default)
        lines += [f"  --{field.name}{kind}",
                  f"      {flag.help} (default: {default})"]
    return "\n".join(lines)


def parse(
    argv: Sequence[str],
    config: type[Config],
    defaults: Mapping[str, Any],
    by_algorithm: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config | None:
    """The frozen Config of a command line; None if --help was asked for.

    Args:
      argv: the script's name and its arguments.
      config: the data set's Config.
      defaults: values that differ from its own defaults.
      by_algorithm: further ones that depend on --algorithm.

    Raises:
      InputError: an unknown flag or a value out of range.
    """
    values = _read(argv, config, defaults)
    if by_algorithm:
        values = _read(argv, config, {
            **defaults, **by_algorithm.get(values.algorithm, {})})
    if values.help:
        print(help_text(Path(argv[0]).name, config, values))
        return None
    chosen = {}
    for field in dataclasses.fields(config):
        value = values[field.name].value
        if isinstance(field.default, tuple):
            value = _numbers(field.name, value, field.default)
        chosen[field.name] = value
    result = config(**chosen)
    result.check()
    return result


def _read(argv: Sequence[str], config: type[Config],
          defaults: Mapping[str, Any]) -> flags.FlagValues:
    values = define(config, defaults)
    try:
        rest = values(list(argv))[1:]
    except (flags.Error, OSError) as e:
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
        example = "5 or 1,5" if kind is int else "0.1,5"
        raise InputError(
            f"{name}={text!r} must be numbers, such as {example}") from e

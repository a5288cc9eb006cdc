"""Hand a generator to Keras: ``python -m tinysrgan.export generator.h5 keras.h5``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinysrgan.core.cli import KERAS_HELP, VALUE_RANGE_HELP, check_target, command, command_line, identities, say
from tinysrgan.core.errors import UserError
from tinysrgan.formats.keras.saving import save_keras_generator
from tinysrgan.inference.upscaler import read_generator

# The value ranges in words.
SPOKEN = {"signed": "-1 to 1", "unit": "0 to 1", "bytes": "0 to 255"}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinysrgan.export",
        description="Write a generator as Keras' weights: for load_weights of a Keras model of the same form, that is, "
        "with the same layers in the same order, whatever they are called. Pixel shuffle is tf.nn.depth_to_space.",
        epilog="Example: python -m tinysrgan.export runs/1/generator.h5 keras.h5. Exit code: 0 done, 2 nothing done.",
    )
    add = parser.add_argument
    add("generator", type=Path, metavar="IN", help=f"generator.h5 or checkpoint.h5 of a training run, or {KERAS_HELP}")
    add("output", type=Path, metavar="OUT", help="the Keras file; its name ends in .h5. IN is never overwritten")
    add("--value-range", metavar="IN:OUT", help=VALUE_RANGE_HELP)
    return parser


def run(args: argparse.Namespace) -> int:
    """Export as the arguments say. Raises UserError or OSError."""
    source, target = args.generator, args.output
    if target.suffix != ".h5" or target.name.endswith(".weights.h5"):
        raise UserError(f"{target} must end in .h5, and not in .weights.h5: by that, Keras knows the format.")
    check_target(target, identities([source]))
    generator = read_generator(source, args.value_range)
    save_keras_generator(target, generator)
    form = generator.config
    before, after = form["value_range"].split(":")
    say(
        f"{target}: {form['blocks']} blocks of {form['filters']} filters, scale {form['scale']}, {form['upscale']} "
        f"upscaling, {form['output']} output; its values go from {SPOKEN[before]} to {SPOKEN[after]}."
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 done, 2 an error of the user's, 130 after Ctrl-C."""
    return command(lambda: run(parser().parse_args(command_line(arguments))))


if __name__ == "__main__":
    sys.exit(main())

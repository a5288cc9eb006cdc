"""Hand a generator to Keras or ONNX: ``python -m tinysrgan.export generator.h5 keras.h5``, ``.keras``, ``.onnx``."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from tinysrgan.core.cli import KERAS_HELP, VALUE_RANGE_HELP, check_target, command, command_line, identities, say
from tinysrgan.core.errors import UserError
from tinysrgan.formats.checkpoint import CheckpointError
from tinysrgan.formats.generator_files import is_ours, read_generator
from tinysrgan.formats.keras.saving import save_keras_archive, save_keras_generator
from tinysrgan.formats.onnx_file import save_onnx_generator

WRITERS = {".h5": save_keras_generator, ".keras": save_keras_archive, ".onnx": save_onnx_generator}

# The value ranges in words.
SPOKEN = {"signed": "-1 to 1", "unit": "0 to 1", "bytes": "0 to 255"}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinysrgan.export",
        description="Write a generator for others. OUT.keras is a whole model, for load_model of Keras 3. OUT.h5 has "
        "Keras' weights: for load_weights of a Keras model of the same form, that is, with the same layers in the same "
        "order, whatever they are called; pixel shuffle is tf.nn.depth_to_space. OUT.onnx is an ONNX model: float32 "
        "images (N, 3, H, W) from -1 to 1, in and out; it needs `pip install onnx`.",
        epilog="Example: python -m tinysrgan.export runs/1/generator.h5 keras.h5. Exit code: 0 done, 2 nothing done.",
    )
    add = parser.add_argument
    add("generator", type=Path, metavar="IN", help=f"generator.h5 or checkpoint.h5 of a training run, or {KERAS_HELP}")
    add("output", type=Path, metavar="OUT", help="the file; its ending is its format. IN is never overwritten")
    add("--value-range", metavar="IN:OUT", help=VALUE_RANGE_HELP)
    return parser


def run(args: argparse.Namespace) -> int:
    """Export as the arguments say. Raises UserError or OSError."""
    source, target = args.generator, args.output
    save = WRITERS.get(target.suffix.lower())
    check_target(target, identities([source]), example="keras.h5")
    if save is None or target.name.lower().endswith(".weights.h5"):
        raise UserError(f"{target} must end in .h5, .keras or .onnx, and not in .weights.h5: that tells the format.")
    with suppress(CheckpointError):  # there is no file, or one of an unknown format
        if is_ours(target):
            raise UserError(f"{target} is a training run's generator or checkpoint, which is kept: give another name.")
    generator = read_generator(source, args.value_range)
    save(target, generator)
    form = generator.config
    before, after = form["value_range"].split(":")
    if save is save_onnx_generator:
        before = after = "signed"  # the model has the rescalings
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

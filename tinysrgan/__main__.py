"""``tinysrgan COMMAND``, or ``python -m tinysrgan COMMAND``: the same as ``python -m tinysrgan.COMMAND``."""

from __future__ import annotations

import argparse
import importlib
import sys

import tinysrgan

COMMANDS = {
    "train": "train an SRGAN on a folder of images",
    "upscale": "enlarge images four times",
    "rescue": "read the QR codes of a photograph that no reader can read",
    "evaluate": "judge generators on a folder of images",
    "export": "hand a generator to Keras or ONNX",
    "doctor": "say what there is to compute with, and how to install the rest",
    "gradcheck": "check the gradients of every layer and loss",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the first argument names with the others; its exit code. 2 for an unknown command."""
    args = sys.argv[1:] if arguments is None else arguments
    listed = "\n".join(f"  {name:10} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="tinysrgan",
        description="An SRGAN from scratch on NumPy and CuPy.",
        epilog=f"commands:\n{listed}\n\n`tinysrgan COMMAND --help` says what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tinysrgan {tinysrgan.__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    name = parser.parse_args(args[:1] or ["--help"]).command
    return importlib.import_module(f"tinysrgan.{name}").main(args[1:])


if __name__ == "__main__":
    sys.exit(main())

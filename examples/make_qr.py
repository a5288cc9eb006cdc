"""Make a folder of QR codes to train on.

    python examples/make_qr.py codes                                   # 600 codes, versions 1 to 4
    python examples/make_qr.py codes --count 6000 --seed 1
    python examples/make_qr.py codes --public                          # the article's kind: 2,500 numbers, 10,000 codes

Half of the codes are like the article's public set: a random number of four digits at level M, the same number in
versions 1 to 4 (``7209-v4.png``). The other half has mixed payloads, which are hard to memorize: digits, capitals or
addresses that fill 60 to 100 % of a symbol, at all four levels of error correction (``mixed-0007-v3.png``). Texts that
end in 7 are reserved for ``benchmarks/qr``.

Needs ``pip install qrcode``. The same seed gives the same codes. The starter set was made by
``python examples/make_qr.py data/qr --count 600 --seed 0``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tinysrgan.core.cli import command, command_line, progress, taken_by
from tinysrgan.core.errors import UserError
from tinysrgan.core.ranks import ranks
from tinysrgan.data.qr_codes import KINDS, LEVELS, QUIET, VERSIONS, is_reserved, modules, payload

OURS = re.compile(r"(\d{4}|mixed-\d+)-v\d\.png")


def make(text: str, version: int, level: str) -> Image.Image:
    """A QR code with its quiet zone, mode "1", 10 pixels per module.

    Raises ValueError if the text is too long for the version, UserError without qrcode.
    """
    light = np.pad(modules(text, version, level), QUIET) == 0
    return Image.fromarray(np.kron(light, np.ones((10, 10), bool)))


def public(rng: np.random.Generator, numbers: int) -> Iterator[tuple[str, str, int, str]]:
    """Codes like the public set's: (file name, text, version, level) of four-digit numbers, each in all versions."""
    allowed = [number for number in range(1000, 10000) if not is_reserved(str(number))]
    for number in rng.permutation(allowed)[:numbers]:
        for version in VERSIONS:
            yield f"{number}-v{version}.png", str(number), version, "M"


def mixed(rng: np.random.Generator, count: int) -> Iterator[tuple[str, str, int, str]]:
    """Mixed payloads: (file name, text, version, level), with equal shares of all versions, levels and kinds."""
    for i in range(count):
        version, level, kind = VERSIONS[i % 4], list(LEVELS)[i // 4 % 4], KINDS[i // 16 % 3]
        yield f"mixed-{i:04d}-v{version}.png", payload(rng, version, level, kind), version, level


def recipe(count: int, seed: int, only_public: bool = False) -> list[tuple[str, str, int, str]]:
    """(file name, text, version, level) of each of ``count`` codes, half public and half mixed."""
    rng = np.random.default_rng(seed)
    public_count = count if only_public else count // 2
    numbers = -(-public_count // len(VERSIONS))
    return [*list(public(rng, numbers))[:public_count], *mixed(rng, count - public_count)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python examples/make_qr.py", description="Make a folder of QR codes to train on."
    )
    parser.add_argument("folder", type=Path, help="where to put them; it may not hold anything else")
    parser.add_argument("--count", type=int, help="how many (default: 600; with --public 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same codes (0)")
    parser.add_argument("--public", action="store_true", help="only four-digit numbers, as in the article's public set")
    return command(
        lambda: run(parser, parser.parse_args(command_line(arguments))),
        stopped="stopped. The codes that were made so far are whole.",
    )


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Make what the command line asks for. Raises UserError or OSError."""
    count = (10_000 if args.public else 600) if args.count is None else args.count
    most = 8100 * len(VERSIONS)
    if not 1 <= count <= most or args.seed < 0:
        parser.error(f"--count must be from 1 to {most}, --seed 0 or more")
    return fill(args.folder, recipe(count, args.seed, args.public))


def fill(folder: Path, codes: list[tuple[str, str, int, str]]) -> int:
    """Make the codes. Raises UserError or OSError if that fails or the folder holds other files."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder.")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if others := [name for name in names if name[0] != "." and not OURS.fullmatch(name)]:
        raise UserError(f"{folder} holds other files ({others[0]} ...): give an empty or a new folder.")
    make("0", 1, "L")  # raises UserError without qrcode, before there is a folder
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".unfinished-{ranks().rank}.png"  # so that no code is ever half written

    def make_one(code: tuple[str, str, int, str]) -> None:
        name, text, version, level = code
        make(text, version, level).save(unfinished, optimize=True)
        os.replace(unfinished, folder / name)
        done(ranks().size)

    try:
        with progress(len(codes), "code") as done:
            list(ranks().map(make_one, codes))
    except OSError as error:
        raise UserError(f"{folder} can't be filled: {error.strerror or error}. The codes in it are whole.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    with taken_by(sys.stdout):
        print(f"{len(codes)} QR codes in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

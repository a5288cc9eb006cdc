"""The command line of ``python -m tinysrgan.train``."""

from __future__ import annotations

import argparse
import itertools
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from tinysrgan.core.cli import DEVICE, command_line, printable
from tinysrgan.core.errors import UserError
from tinysrgan.data.listing import RUN_PICTURES
from tinysrgan.formats import checkpoint
from tinysrgan.formats.generator_files import is_ours, read_generator
from tinysrgan.training.config import PRESETS, Options
from tinysrgan.training.log_words import resume_option

# Earlier names, on the command line and in older checkpoints; and earlier values.
RENAMED = {
    "pretrain_rate": "pretrain_learning_rate",
    "content": "content_loss",
    "fresh_codes": "synthetic",
    "limit": "max_images",
    "generator": "init_from",
    "vgg": "vgg_weights",
}
RENAMED_VALUES = {"squares": "mse", "entropy": "bce"}


@dataclass
class RunPaths:
    """What concerns this call of the command alone: where files are, and the device."""

    data: Path
    out: Path
    device: str
    vgg_weights: Path | None
    resume: Path | None  # the checkpoint to go on from
    start: int  # and its step
    init_from: Path | None = None  # the generator to begin with
    value_range: str | None = None  # of its values, if its file doesn't state it
    numbered: bool = False  # whether ``out`` is the next free runs/N
    needs_vgg: bool = False  # whether it is an error, not a notice, if VGG19's weights are missing


def parse(arguments: list[str] | None = None) -> tuple[RunPaths, Options]:
    """Read the command line: its paths, and the run's options, which with ``--resume`` come from the checkpoint.

    Raises UserError; argparse itself exits with 2.
    """
    parser = _parser()
    args = parser.parse_args(command_line(arguments))
    given = {option.name: getattr(args, option.name) for option in fields(Options) if hasattr(args, option.name)}
    if args.vgg_weights and given.get("content_loss") == "pixels":
        parser.error("--vgg-weights is VGG19's and --content-loss pixels doesn't use it: leave one of them out")
    if "epochs" in given and "steps" in given:
        parser.error("--epochs and --steps say the same thing: leave one of them out")
    if args.value_range and not args.init_from:
        parser.error("--value-range is that of the generator of --init-from: leave it out")
    if args.resume and args.init_from:
        parser.error("--resume goes on with a run and its generator: leave --init-from out")
    if args.resume:
        paths, options = _resume(args, given)
    elif args.data is None:
        parser.error("which folder of images? For example: python -m tinysrgan.train data/qr")
    else:
        paths, options = _begin(args, given)
    if "steps" in given:
        options.epochs = None
    if options.hr_size % options.scale:
        raise UserError(f"--hr-size {options.hr_size} is not a multiple of --scale {options.scale}.")
    if paths.vgg_weights and options.content_loss == "pixels":
        raise UserError(
            f"The run that --resume goes on with compares pixels and can't use --vgg-weights {paths.vgg_weights}: "
            "leave it out."
        )
    return paths, options


def _begin(args: argparse.Namespace, given: dict[str, Any]) -> tuple[RunPaths, Options]:
    """A new run: the preset's options, then those given. Raises UserError."""
    options = Options(**PRESETS[given.get("preset", "qr")] | given)
    if args.vgg_weights and options.content_loss == "pixels":
        options.content_loss = "block3_conv4"
    if args.init_from:
        options = _init_from(args.init_from, args.value_range, options, given)
    paths = RunPaths(args.data, _results_folder(args.out), args.device, args.vgg_weights, None, 0, args.init_from)
    paths.value_range = args.value_range
    return replace(paths, numbered=args.out is None, needs_vgg="content_loss" in given), options


def _init_from(path: Path, value_range: str | None, options: Options, given: dict[str, Any]) -> Options:
    """The options, with those that a trained generator decides. Raises UserError where others were given by name."""
    config = read_generator(path, value_range).config
    decided = {name: config[name] for name in ("blocks", "filters", "scale", "upscale", "output")}
    decided["net_values"] = config["value_range"]
    decided["norm"] = "batch" if config["norm"] else "none"
    if config["output"] != "tanh":
        decided["pixel_loss"] = "mse"  # bce needs values inside -1 and 1
    elif is_ours(path):
        decided["pixel_loss"] = "bce"
    for name, value in decided.items():
        if given.get(name, value) != value:
            raise UserError(f"{path} is a generator of {_flag(name)} {value}: leave out {_flag(name)} {given[name]}.")
    return replace(options, **decided)


def _resume(args: argparse.Namespace, given: dict[str, Any]) -> tuple[RunPaths, Options]:
    """A run to go on with: its checkpoint's options, then those given. Raises UserError."""
    path = args.resume / "checkpoint.h5" if args.resume.is_dir() else args.resume
    state = checkpoint.read_state(path)
    if not _is_run(state):
        raise UserError(
            f"{path} holds no run that this tinysrgan can go on with; give the folder or checkpoint.h5 of one."
        )
    # Older checkpoints lack the newer options; before --optimizer existed, every optimizer was Adam.
    saved = asdict(Options()) | {"optimizer": "adam"} | _saved_options(state["options"], path)
    changeable = {option.name for option in fields(Options) if option.metadata["changeable"]}
    changed = [name for name, value in given.items() if name not in changeable and value != saved[name]]
    if changed:
        names = ", ".join(f"{_flag(name)} (was {saved[name]})" for name in changed)
        raise UserError(f"A resumed run keeps its options; leave out {names}, or start a new run without --resume.")
    done, before = state["step"], saved["pretrain_steps"]
    if (pixels := given.get("pretrain_steps", before)) != before and done > min(pixels, before):
        raise UserError(
            f"{path} has done {done} steps, {min(done, before)} of them on pixels, and --pretrain-steps {pixels} can't "
            "change that: leave it out, or start a new run with --init-from."
        )
    vgg_weights = args.vgg_weights or (Path(state["vgg"]) if state.get("vgg") else None)
    out = path.parent
    if args.out and args.out.resolve() != out.resolve():
        out = _results_folder(args.out)
    data = args.data or Path(state["data"])
    if not args.data and not data.exists():
        raise UserError(
            f"{data}, the run's folder of images, doesn't exist any more: say where it is now, as in `python -m "
            f"tinysrgan.train NEWFOLDER {resume_option(args.resume)}`."
        )
    paths = RunPaths(data, out, args.device, vgg_weights, path, done)
    return replace(paths, needs_vgg=True), Options(**saved | given)


def _is_run(state: dict[str, Any]) -> bool:
    """Whether a checkpoint's state is that of a run whose options are all known here."""
    kinds = {"options": dict, "data": str, "vgg": str, "step": int}
    right = all(type(({"vgg": ""} | state).get(name)) is kind for name, kind in kinds.items())
    known = {option.name for option in fields(Options)}
    return right and state["step"] >= 0 and {RENAMED.get(name, name) for name in state["options"]} <= known


def _saved_options(options: dict[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's options under today's names. Untrusted input: read as a command line is."""
    defaults = asdict(Options())
    options = {RENAMED.get(name, name): value for name, value in options.items()}
    given = {name: value for name, value in options.items() if value != defaults[name]}
    try:
        read = _add_options(_SavedOptions(argument_default=argparse.SUPPRESS), saved=True).parse_args(
            [_flag(name) if value is True else f"{_flag(name)}={value}" for name, value in given.items()]
        )
    except UserError as error:
        raise UserError(f"{path} is of no use: {printable(str(error))[:200]}.") from None
    return {name: getattr(read, name, defaults[name]) for name in options}


class _SavedOptions(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _results_folder(out: Path | None) -> Path:
    """``--out``, or the next free runs/N. Raises UserError if it holds a run's results or can't be written to.

    The folder is not made yet: ``atomic_write.claimed`` makes it once the command line is known to be right.
    """
    if out is None:
        out = next(path for n in itertools.count(1) if not (path := Path("runs") / str(n)).exists())
    if (out / "checkpoint.h5").exists():
        raise UserError(f"{out} holds a run already: go on with it by {resume_option(out)}, or give another --out.")
    kinds = ("generator*.h5", *RUN_PICTURES)
    if results := [path for kind in kinds for path in sorted(out.glob(kind))]:
        raise UserError(f"{out} holds a run's {results[0].name} already: give another --out.")
    place = next(path for path in (out, *out.parents) if path.exists() or path.is_symlink())
    if not place.is_dir():
        raise UserError(f"{place} is not a folder, so results can't go to {out}: give another --out.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{place} doesn't allow to write results to {out}: give another --out.")
    return out


# ---------------------------------------------------------------- the parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tinysrgan.train",
        description="Train an SRGAN on a folder of images: first on pixels alone, then against a discriminator. "
        "Everything goes to one folder: checkpoint.h5, generator.h5, log.csv, pictures.",
        epilog="Values in brackets are those of the preset qr: a small net for QR codes, 4 to 9 minutes on 2 cores. "
        "photo: the same net for photographs, about as long: random crops at their own resolution. "
        "article: the net and losses of the article (16 blocks, 64 channels, nearest upsampling, VGG19's block3_conv4; "
        "one epoch, one image a step, no pre-training; it keeps generator-epoch-NNN.h5 every 5 epochs). paper: those "
        "of Ledig et al. 2017 (pixel shuffle, VGG19's block5_conv4, a million steps of pre-training). An option that "
        "is given overrides the preset's.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("data", type=Path, nargs="?", default=None, help="folder of images, for example data/qr")
    add("--out", type=Path, default=None, metavar="DIR", help="folder for the results (default: the next free runs/N)")
    add("--resume", type=Path, default=None, metavar="RUN", help="go on with a run: its folder or its checkpoint")
    add("--device", **DEVICE)
    for name, what in (
        ("init_from", "begin with this trained generator, of tinysrgan, Keras or PyTorch, not with a new one"),
        ("vgg_weights", "VGG19's Keras weights (default: found or downloaded)"),
    ):
        _add(parser, name, type=Path, default=None, metavar="FILE", help=what)
    add("--value-range", default=None, metavar="IN:OUT", help="of the net of --init-from, as in upscale")
    return _add_options(parser)


def _add_options(parser: argparse.ArgumentParser, saved: bool = False) -> argparse.ArgumentParser:
    """Give the parser the command line's options of ``Options``; with ``saved`` also those that only presets set."""
    groups: dict[str | None, argparse._ActionsContainer] = {None: parser}
    for option in fields(Options):
        group, help, allowed = (option.metadata[name] for name in ("group", "help", "allowed"))
        if help is None and not saved:
            continue
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        if option.type == "bool":
            _add(groups[group], option.name, help=help, action="store_true")
            continue
        settings: dict[str, Any] = {"metavar": option.metadata["metavar"]}
        if callable(allowed):
            settings = {"type": allowed, "metavar": settings["metavar"] or ("X" if option.type == "float" else "N")}
        elif option.type == "int":
            settings |= {"type": int, "choices": allowed}
        else:
            settings |= {"type": lambda text: RENAMED_VALUES.get(text, text), "choices": allowed}
        default = "" if option.default is None else f" ({option.default})"
        _add(groups[group], option.name, help=f"{help}{default}", **settings)
    return parser


def _add(parser: argparse._ActionsContainer, name: str, help: str, **settings: Any) -> None:
    """Add an option, and without a word in --help the name that it had earlier."""
    parser.add_argument(_flag(name), help=help, **settings)
    for old, new in RENAMED.items():
        if new == name:
            parser.add_argument(_flag(old), dest=name, help=argparse.SUPPRESS, **settings)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

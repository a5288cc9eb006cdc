"""The command line of ``python -m tinysrgan.train``."""

from __future__ import annotations

import argparse
import itertools
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from tinysrgan.core.cli import EXACT_HELP, command_line, printable, real, whole
from tinysrgan.core.device import DEVICES
from tinysrgan.core.errors import UserError
from tinysrgan.formats import checkpoint
from tinysrgan.losses import PIXEL_LOSSES
from tinysrgan.models.vgg19 import layer_names
from tinysrgan.training.config import PRESETS, Options
from tinysrgan.training.srgan import OPTIMIZERS

# What may differ when a run goes on; everything else would make it another run.
CHANGEABLE = {"steps", "epochs", "pretrain_steps", "pretrain_rate", "learning_rate", "save_every"}


@dataclass
class RunPaths:
    """What concerns this call of the command alone: where things lie, and the device."""

    data: Path
    out: Path
    device: str
    vgg: Path | None
    resume: Path | None  # the checkpoint to go on from
    start: int  # and its step
    generator: Path | None = None  # the one to begin with
    numbered: bool = False  # whether ``out`` is the next free runs/N


def parse(arguments: list[str] | None = None) -> tuple[RunPaths, Options, set[str]]:
    """Read the command line. Returns the call, the run's options, and the names of the options given.

    With ``--resume`` the options come from the checkpoint. Raises UserError; argparse itself exits with 2.
    """
    parser = _parser()
    words = parser.parse_args(command_line(arguments))
    given = {field.name: getattr(words, field.name) for field in fields(Options) if hasattr(words, field.name)}
    if words.vgg and given.get("content") == "pixels":
        parser.error("--vgg brings VGG19's weights and --content pixels doesn't use them: leave one of them out")
    if "epochs" in given and "steps" in given:
        parser.error("--epochs and --steps say the same thing: leave one of them out")
    if words.resume and words.generator:
        parser.error("--resume goes on with a run and its generator: leave --generator out")
    if words.resume:
        call, options = _resume(words, given)
    elif words.data is None:
        parser.error("which folder of images? For example: python -m tinysrgan.train data/qr")
    else:
        options = Options(**PRESETS[given.get("preset", "qr")] | given)
        if words.vgg and options.content == "pixels":
            options.content = "block3_conv4"
        if words.generator:
            options = _begin_with(words.generator, options, given)
        out = _results_folder(words.out)
        call = RunPaths(words.data, out, words.device, words.vgg, None, 0, words.generator, words.out is None)
    if "steps" in given:
        options.epochs = None
    if options.hr_size % options.scale:
        raise UserError(f"--hr-size {options.hr_size} is not a multiple of --scale {options.scale}.")
    if call.vgg and options.content == "pixels":
        raise UserError(
            f"The run that --resume goes on with compares pixels and can't use --vgg {call.vgg}: leave it out."
        )
    return call, options, set(given)


def _resume(words: argparse.Namespace, given: dict[str, Any]) -> tuple[RunPaths, Options]:
    path = words.resume / "checkpoint.h5" if words.resume.is_dir() else words.resume
    state = checkpoint.read_state(path)
    if not _is_run(state):
        raise UserError(
            f"{path} holds no run that this tinysrgan can go on with; give the folder or checkpoint.h5 of one."
        )
    # An older checkpoint knows fewer options; before there was one for it, every optimizer was Adam.
    saved = asdict(Options()) | {"optimizer": "adam"} | _saved_options(state["options"], path)
    changed = [name for name, value in given.items() if name not in CHANGEABLE and value != saved.get(name)]
    if changed:
        names = ", ".join(f"--{name.replace('_', '-')} (was {saved.get(name)})" for name in changed)
        raise UserError(f"A resumed run keeps its options; leave out {names}, or start a new run without --resume.")
    data = words.data or Path(state["data"])
    vgg = words.vgg or (Path(state["vgg"]) if state.get("vgg") else None)
    out = path.parent
    if words.out and words.out.resolve() != out.resolve():
        out = _results_folder(words.out)
    return RunPaths(data, out, words.device, vgg, path, state["step"]), Options(**saved | given)


def _begin_with(path: Path, options: Options, given: dict[str, Any]) -> Options:
    """The options with those that a trained generator decides. Raises UserError where others were given by name."""
    config = checkpoint.load_generator(path).config
    if config["value_range"] != "signed:signed" or config["output"] == "sigmoid":
        raise UserError(f"{path} has a value range that training doesn't know: give a generator that it made.")
    of_the_net = {name: config[name] for name in ("blocks", "filters", "scale", "upscale")}
    of_the_net["pixel_loss"] = "entropy" if config["output"] == "tanh" else "squares"
    for name, value in of_the_net.items():
        if given.get(name, value) != value:
            word = f"--{name.replace('_', '-')}"
            raise UserError(f"{path} is a generator of {word} {value}: leave out {word} {given[name]}.")
    return replace(options, **of_the_net)


def _is_run(state: dict[str, Any]) -> bool:
    """Whether a checkpoint's state is a run's, and knows no option that isn't known here."""
    kinds = {"options": dict, "data": str, "vgg": str, "step": int}
    right = all(type(({"vgg": ""} | state).get(name)) is kind for name, kind in kinds.items())
    return right and state["step"] >= 0 and state["options"].keys() <= {field.name for field in fields(Options)}


def _saved_options(options: dict[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's options, read as if they were a command line: a file is to be trusted no more than that."""
    parser = _parser(_SavedOptions)
    add = parser.add_argument  # what only the presets decide
    add("--discriminator-filters", type=whole(1, 512))
    add("--discriminator-dense", type=whole(1, 8192))
    add("--slope", type=real(0))
    add("--feature-scale", type=real(0))
    add("--decay", choices=("cosine", "step", "none"))
    given = {name.replace("_", "-"): value for name, value in options.items() if value != getattr(Options(), name)}
    words = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
    try:
        read = vars(parser.parse_args(words))
    except UserError as error:
        raise UserError(f"{path} is of no use: {printable(str(error))[:200]}.") from None
    return {name: read.get(name, getattr(Options(), name)) for name in options}


class _SavedOptions(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _results_folder(out: Path | None) -> Path:
    """``--out``, where no run's results may be, or the next free runs/N. Raises UserError if it can't be written to.

    Nothing is made yet: ``files.claimed`` does that, where the command line is known to be right.
    """
    if out is None:
        out = next(path for n in itertools.count(1) if not (path := Path("runs") / str(n)).exists())
    if (out / "checkpoint.h5").exists():
        raise UserError(f"{out} holds a run already: go on with it by --resume {out}, or give another --out.")
    kinds = ("generator*.h5", "losses.png", "pictures/step-*.png")
    if results := [path for kind in kinds for path in sorted(out.glob(kind))]:
        raise UserError(f"{out} holds a run's {results[0].name} already: give another --out.")
    place = next(path for path in (out, *out.parents) if path.exists() or path.is_symlink())
    if not place.is_dir():
        raise UserError(f"{place} is not a folder, so results can't go to {out}: give another --out.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{place} doesn't allow to write results to {out}: give another --out.")
    return out


def _parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    qr = Options()
    parser = kind(
        prog="python -m tinysrgan.train",
        description="Train an SRGAN on a folder of images: first on pixels alone, then against a discriminator. "
        "Everything goes to one folder: checkpoint.h5, generator.h5, log.csv, pictures.",
        epilog="Numbers in brackets are those of the preset qr: a small net for QR codes, 5 minutes on a laptop. "
        "article: the net and losses of the article (16 blocks, 64 channels, nearest upsampling, VGG19's block3_conv4; "
        "one epoch, one image a step, no pre-training; it keeps generator-epoch-NNN.h5 every 5 epochs). paper: those "
        "of Ledig et al. 2017 (pixel shuffle, VGG19's block5_conv4, a million steps of pre-training). Options given by "
        "name go before the preset's.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("data", type=Path, nargs="?", default=None, help="folder of images, for example data/qr")
    add("--preset", choices=PRESETS, help="where the other options start from (qr)")
    add("--out", type=Path, default=None, metavar="DIR", help="folder for the results (default: the next free runs/N)")
    add("--resume", type=Path, default=None, metavar="RUN", help="go on with a run: its folder or its checkpoint")
    add("--device", choices=DEVICES, default="auto", help="where to compute (default: a GPU if one works)")

    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--hr-size", type=whole(1, 2048), metavar="N", help=f"side of the clear images, in pixels ({qr.hr_size})")
    add("--scale", type=int, choices=(2, 4, 8), help=f"how many times smaller the blurred ones are ({qr.scale})")
    add(
        "--augment",
        choices=("none", "shift", "hard", "camera", "article"),
        help="none; sub-pixel shifts; these, rotation, blur, dimming and noise; camera: synthetic codes as photographs "
        f"show them; the article's ({qr.augment})",
    )
    add("--fresh-codes", action="store_true", help="train on new QR codes without end; the folder's images only judge")
    add("--flip", action="store_true", help="mirror half of the images; a mirrored QR code is not a QR code")
    add("--limit", type=whole(1), metavar="N", help="use only so many of the images")

    group = parser.add_argument_group("nets and losses")
    add = group.add_argument
    add(
        "--generator",
        type=Path,
        default=None,
        metavar="FILE",
        help="begin with this trained generator, for example weights/qr_x4_srresnet.h5, instead of a new one",
    )
    add(
        "--blocks",
        type=whole(1, 64),
        metavar="N",
        help=f"the generator's residual blocks ({qr.blocks}; article and paper: 16)",
    )
    add(
        "--filters",
        type=whole(1, 512),
        metavar="N",
        help=f"the generator's channels ({qr.filters}; article and paper: 64)",
    )
    add("--upscale", choices=("shuffle", "nearest"), help=f"pixel shuffle, or the article's upsampling ({qr.upscale})")
    add(
        "--pixel-loss",
        choices=PIXEL_LOSSES,
        help=f"squares; or entropy, for black and white: fewer images, the net ends in tanh ({qr.pixel_loss})",
    )
    add("--content", choices=["pixels", *layer_names()], metavar="LAYER", help="pixels, or a layer of VGG19 (pixels)")
    add("--vgg", type=Path, default=None, metavar="FILE", help="VGG19's Keras weights (default: found or downloaded)")
    add(
        "--adversarial-weight",
        type=real(0),
        metavar="X",
        help=f"weight of the adversarial loss ({qr.adversarial_weight:g})",
    )

    group = parser.add_argument_group("schedule")
    add = group.add_argument
    add("--batch-size", type=whole(1, 4096), metavar="N", help=f"images a step ({qr.batch_size})")
    add("--pretrain-steps", type=whole(0, 10**9), metavar="N", help=f"steps on pixels alone ({qr.pretrain_steps})")
    add("--steps", type=whole(0, 10**9), metavar="N", help=f"adversarial steps ({qr.steps})")
    add("--epochs", type=whole(0, 10**9), metavar="N", help="the same in passes over the training images")
    add(
        "--optimizer",
        choices=OPTIMIZERS,
        help=f"what trains the generator; muon needs fewer images ({qr.optimizer}; article and paper: adam)",
    )
    add(
        "--pretrain-rate",
        type=real(0),
        metavar="X",
        help=f"the learning rate while pre-training ({qr.pretrain_rate:g})",
    )
    add("--learning-rate", type=real(0), metavar="X", help=f"and in the adversarial phase ({qr.learning_rate:g})")
    add("--save-every", type=whole(1), metavar="N", help=f"steps between checkpoints ({qr.save_every})")
    add("--exact", action="store_true", help=EXACT_HELP)
    add("--seed", type=whole(0), metavar="N", help=f"same seed, same run ({qr.seed})")
    return parser

"""What a run has held out stays held out: over a resume, a new run from its generator, and for ``evaluate``."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tinysrgan import evaluate
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.division import Division
from tinysrgan.train import main
from tinysrgan.training.run_log import RunLog as Report

SMALL = "--blocks 1 --filters 2 --batch-size 4 --hr-size 32 --device cpu --pretrain-steps 6 --steps 0".split()
MORE = ["--device", "cpu", "--steps"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with 24 images in images/."""
    monkeypatch.chdir(tmp_path)
    add(*(f"images/{i:02}.png" for i in range(24)))
    return tmp_path


@pytest.fixture
def used(monkeypatch):
    """The images that each run in turn really decoded to train on, and those that it judged by."""
    runs: list[tuple[set[str], set[str]]] = []

    def finish(self):
        sides = [pairs.sources.kept if isinstance(pairs, ImagePairs) else () for pairs in (self.pairs, self.held_out)]
        runs.append(tuple({path.name for path in side} for side in sides))
        save_generator(self, "generator.h5", self.total)

    save_generator = Report.save_generator
    monkeypatch.setattr(Report, "finish", finish)
    return runs


def add(*paths: str) -> None:
    for path in paths:
        pixels = np.random.default_rng(sum(path.encode())).integers(0, 256, (40, 40), np.uint8)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def train(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def held_out(path="run/checkpoint.h5") -> list[str]:
    return Division.read(Path(path)).held_out


def forget(path: str) -> None:
    """Make a file one from before there were lists."""
    with h5py.File(path, "r+") as file:
        state = json.loads(file.attrs["state"])
        del state["images"]
        file.attrs["state"] = json.dumps(state)


# ---------------------------------------------------------------- going on


def test_images_added_before_a_resume_are_trained_on_and_those_held_out_stay(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    first = held_out()
    assert len(first) == 8 and used[0][1] == {*first} and len(used[0][0]) == 16
    add(*(f"images/new{i}.png" for i in range(3)), "images/000.png")
    assert train("--resume", "run", *MORE, 14) == 0
    assert held_out() == first == held_out("run/generator.h5")
    assert used[1][1] == {*first} and not used[1][0] & {*first}
    assert {"new0.png", "new1.png", "new2.png", "000.png"} <= used[1][0]
    error = capsys.readouterr().err
    assert f"4 images are new in {here / 'images'}, to train on: 000.png, new0.png, new1.png, new2.png." in error
    assert train("--resume", "run", *MORE, 15) == 0
    assert "new" not in capsys.readouterr().err, "they are known by now"


def test_a_folder_as_it_was_goes_on_without_a_word(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    before = Division.read(Path("run/checkpoint.h5"))
    capsys.readouterr()
    assert train("--resume", "run", *MORE, 8) == 0
    assert Division.read(Path("run/checkpoint.h5")) == before and used[0] == used[1]
    assert "tinysrgan:" not in capsys.readouterr().err


def test_missing_images_are_named_and_may_come_back(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    first = Division.read(Path("run/checkpoint.h5"))
    gone = [first.held_out[0], first.training[0]]
    for name in gone:
        os.rename(f"images/{name}", name)
    assert train("--resume", "run", *MORE, 8) == 0
    assert f"2 images are missing from {here / 'images'}: {', '.join(sorted(gone))}." in capsys.readouterr().err
    assert used[1][1] == {*first.held_out[1:]} and not used[1][0] & {*first.held_out}
    for name in gone:
        os.rename(name, f"images/{name}")
    assert train("--resume", "run", *MORE, 16) == 0
    assert Division.read(Path("run/checkpoint.h5")) == first and used[2] == used[0]


def test_variants_of_a_held_out_image_are_held_out_too(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    first = Division.read(Path("run/checkpoint.h5"))
    stem, trained = Path(first.held_out[0]).stem, Path(first.training[0]).stem
    add(f"images/{stem}_crop1.png", f"images/{stem}/crop2.png", f"images/{trained}_crop1.png")
    assert train("--resume", "run", *MORE, 12) == 0
    assert held_out() == [*first.held_out, f"{stem}/crop2.png", f"{stem}_crop1.png"]
    assert f"{trained}_crop1.png" in used[1][0] and f"{stem}_crop1.png" not in used[1][0]
    assert f"held out since images like them are: {stem}/crop2.png, {stem}_crop1.png." in capsys.readouterr().err


def test_the_folder_may_move_and_its_folders_too(here, used, capsys):
    add(*(f"images/sub/{letter}.png" for letter in "abcdefghijkl"))
    assert train("images", *SMALL, "--out", "run") == 0
    first = held_out()
    assert any("sub/" in name for name in first)
    os.rename("images", "elsewhere")
    assert train("elsewhere", "--resume", "run", *MORE, 1) == 0
    assert held_out() == first and used[1][1] == used[0][1]
    assert "tinysrgan: " not in capsys.readouterr().err.replace("tinysrgan: images holds photographs", "")
    os.rename("elsewhere/sub", "elsewhere/other")
    assert train("--resume", "run", *MORE, 12) == 0
    assert used[2][1] == used[0][1] and not used[2][0] & used[0][1]


def test_another_folder_is_refused(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    add(*(f"others/x{i}.png" for i in range(6)))
    before = Path("run/checkpoint.h5").read_bytes()
    assert train("others", "--resume", "run", *MORE, 1) == 2
    assert "None of the images in others is one that run/checkpoint.h5 holds out" in capsys.readouterr().err
    assert Path("run/checkpoint.h5").read_bytes() == before


def test_a_limit_is_kept(here, used, capsys):
    """A folder of fewer images leaves room for new ones; else the rest of the folder is not new."""
    for limit, room in ((12, 0), (26, 2)):
        assert train("images", *SMALL, "--max-images", limit, "--out", f"run{limit}") == 0
        first = Division.read(Path(f"run{limit}/checkpoint.h5"))
        add(*(f"images/new{i}.png" for i in range(3)))
        assert train("--resume", f"run{limit}", *MORE, 8) == 0
        second = Division.read(Path(f"run{limit}/checkpoint.h5"))
        assert second.held_out == first.held_out and len(second.training) == len(first.training) + room
        assert not used[-1][0] & {*first.held_out}
        for i in range(3):
            os.remove(f"images/new{i}.png")
    assert "missing" not in capsys.readouterr().err


def test_a_checkpoint_from_before_lists_is_divided_as_then_and_says_so(here, used, capsys):
    """Each image by itself: variants could be on both sides."""
    for i in range(8):
        add(f"images/{i:02}_crop1.png")
    assert train("images", *SMALL, "--out", "run") == 0
    grouped = held_out()
    forget("run/checkpoint.h5")
    capsys.readouterr()
    assert train("--resume", "run", *MORE, 1) == 0
    assert "run/checkpoint.h5 doesn't list its images" in capsys.readouterr().err
    order = np.random.default_rng(12).permutation(32)[:11]
    assert held_out() == [sorted(os.listdir("images"))[i] for i in order] != grouped
    assert train("--resume", "run", *MORE, 2) == 0
    assert "doesn't list" not in capsys.readouterr().err


def test_sources_are_counted(here, used, capsys):
    add(*(f"crops/{i}_crop{j}.png" for i in range(6) for j in range(2)))
    assert train("crops", *SMALL, "--out", "run") == 0
    assert "the 12 images are of 6 sources; each source's stay on one side." in capsys.readouterr().err
    assert len({name[0] for name in held_out()}) == len(held_out()) / 2 == 2
    add(*(f"one/a_crop{j}.png" for j in range(4)))
    assert train("one", *SMALL, "--out", "run1") == 0
    assert "are of one source, so those held out are like the others" in capsys.readouterr().err


@pytest.mark.parametrize("images", [1, [], {}, {"training": [], "held_out": 1}, {"training": [1], "held_out": []}])
def test_lists_that_are_none(here, used, images, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    with h5py.File("run/checkpoint.h5", "r+") as file:
        file.attrs["state"] = json.dumps(json.loads(file.attrs["state"]) | {"images": images})
    capsys.readouterr()
    assert train("--resume", "run", *MORE, 1) == 2
    assert "run/checkpoint.h5: what it says of its images are no lists of names." in capsys.readouterr().err


def test_names_that_are_no_text(here, used):
    """Bytes that are no UTF-8, quotes, line ends."""
    names = [os.fsdecode(b"\xff.png"), "a\nb.png", "'\".png", "ü.png"]
    for i, name in enumerate(names):
        shutil.copy(f"images/{i:02}.png", f"images/{name}")
    assert train("images", *SMALL, "--out", "run") == 0
    first = Division.read(Path("run/checkpoint.h5"))
    assert {*names} < {*first.training, *first.held_out}
    assert train("--resume", "run", *MORE, 1) == 0
    assert Division.read(Path("run/checkpoint.h5")) == first


# ---------------------------------------------------------------- new runs that begin with a generator


def test_a_new_run_does_not_judge_by_what_its_generator_has_learnt(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    first = held_out()
    add(*(f"images/a{i}.png" for i in range(6)))
    for file in ("generator.h5", "checkpoint.h5"):
        assert train("images", *SMALL[6:], "--init-from", f"run/{file}", "--out", file[:-3]) == 0
        assert held_out(f"{file[:-3]}/checkpoint.h5") == first and not used[-1][0] & {*first}
        assert f"run/{file} has learnt from images in images" in capsys.readouterr().err


def test_other_images_are_divided_anew(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    add(*(f"others/x{i}.png" for i in range(6)))
    assert train("others", *SMALL[6:], "--init-from", "run/generator.h5", "--out", "second") == 0
    assert len(held_out("second/checkpoint.h5")) == 2
    assert "has learnt" not in capsys.readouterr().err


def test_with_fresh_codes_all_images_are_held_out_but_those_learnt_before(here, used):
    pytest.importorskip("qrcode")
    fresh = ["--synthetic", "--hr-size", 128, "--device", "cpu", "--pretrain-steps", 1, "--steps", 0]
    assert train("images", *SMALL, *fresh, "--out", "fresh") == 0
    assert held_out("fresh/generator.h5") == sorted(os.listdir("images"))
    add("images/new.png")
    assert train("--resume", "fresh", *MORE, 1) == 0
    assert held_out("fresh/generator.h5")[-1] == "new.png" and "new.png" in used[-1][1]

    assert train("images", *SMALL[6:], "--init-from", "fresh/generator.h5", "--out", "run") == 0
    assert len(held_out()) == 8, "from fresh codes nothing in the folder was learnt"
    assert train("images", *fresh, "--init-from", "run/generator.h5", "--out", "again") == 0
    assert held_out("again/generator.h5") == held_out() and used[-1][1] == {*held_out()}


# ---------------------------------------------------------------- evaluate


def judged(*arguments) -> set[str]:
    """The images that ``evaluate --held-out`` judges: those that it names once all are broken but for one."""
    command = [*map(str, arguments), "--held-out", "--device", "cpu", "--json", "scores.json"]
    assert evaluate.main(command) == 0
    report = json.loads(Path("scores.json").read_text())
    names = {Path(path).name for path in report["skipped"]}
    assert report["images"] == 1
    return names


def break_all_but(keep: str, folder: str = "images") -> None:
    for path in Path(folder).rglob("*.png"):
        if path.name != keep:
            path.write_bytes(b"broken")


def test_evaluate_judges_what_training_held_out(here, used, capsys):
    """Also after images were added, the folder has moved, and some are gone."""
    assert train("images", *SMALL, "--out", "run") == 0
    first = held_out()
    add(*(f"images/a{i}.png" for i in range(7)))
    os.rename("images", "moved")
    break_all_but(first[0], "moved")
    assert judged("moved", "--weights", "run/generator.h5") == {*first[1:]}
    assert judged("moved", "--weights", "run/checkpoint.h5") == {*first[1:]}
    assert "not in" not in capsys.readouterr().err
    os.remove(f"moved/{first[1]}")
    assert judged("moved", "--weights", "run/generator.h5") == {*first[2:]}
    assert "1 of the 8 images that run/generator.h5 held out are not in moved." in capsys.readouterr().err


def test_evaluate_takes_what_all_generators_held_out(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    add(*(f"images/a{i}.png" for i in range(7)))
    assert train("images", *SMALL, "--out", "second") == 0
    both = {*held_out()} & {*held_out("second/generator.h5")}
    assert 0 < len(both) < 8
    keep = min(both)
    break_all_but(keep)
    assert judged("images", "--weights", "run/generator.h5", "--weights", "second/generator.h5") == both - {keep}


def test_evaluate_limits_what_was_held_out(here, used):
    assert train("images", *SMALL, "--out", "run") == 0
    weights = ["--weights", "run/generator.h5", "--device", "cpu", "--json", "scores.json"]
    assert evaluate.main(["images", "--held-out", "--limit", "3", *weights]) == 0
    assert json.loads(Path("scores.json").read_text())["images"] == 3


def test_evaluate_in_another_folder_holds_nothing_out(here, used, capsys):
    assert train("images", *SMALL, "--out", "run") == 0
    add("others/x.png")
    capsys.readouterr()
    assert evaluate.main(["others", "--held-out", "--weights", "run/generator.h5", "--device", "cpu"]) == 2
    assert "None of the images that run/generator.h5 held out is left to judge in others" in capsys.readouterr().err


def test_evaluate_says_where_a_file_does_not_tell(here, used, capsys):
    """Then it is what a run held out before there were lists, as far as the folder is unchanged."""
    assert train("images", *SMALL, "--out", "run") == 0
    first = held_out()
    forget("run/generator.h5")
    break_all_but(first[0])
    assert judged("images", "--weights", "run/generator.h5") == {*first[1:]}
    assert "run/generator.h5 doesn't list what its training held out" in capsys.readouterr().err

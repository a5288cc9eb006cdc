"""What a run shows and keeps: log.csv, the saved lines, what was skipped; and without the optional packages."""

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysrgan.core.errors import UserError
from tinysrgan.data.dataset import ImagePairs
from tinysrgan.data.division import Division
from tinysrgan.training.arguments import RunPaths
from tinysrgan.training.config import Options
from tinysrgan.training.log_file import CLOCKS, SCORES
from tinysrgan.training.log_words import beside_bicubic, describe
from tinysrgan.training.run_log import RunLog
from tinysrgan.training.srgan import SRGAN

CODES = sorted((Path(__file__).parents[2] / "data" / "qr").glob("*.png"))
NAN = float("nan")


@pytest.fixture
def make(tmp_path):
    """RunLogs on a run of two tiny nets: 60 steps of two images, 30 of them pre-training, 4 steps an epoch."""

    def make(start=0, save_every=25, training=CODES[:8], held_out=CODES[8:11], preset="qr") -> RunLog:
        options = Options(
            preset=preset,
            hr_size=32,
            blocks=1,
            filters=4,
            discriminator_filters=2,
            discriminator_dense=4,
            batch_size=2,
            pretrain_steps=30,
            steps=30,
            save_every=save_every,
        )
        call = RunPaths(tmp_path / "codes", tmp_path / "run", "cpu", None, None, start)
        pairs, judged = (ImagePairs(list(paths), 32, 4) for paths in (training, held_out))
        division = Division([path.name for path in training], [path.name for path in held_out])
        return RunLog(call, options, SRGAN.build(options, None, np), pairs, judged, np, division)

    return make


def losses(step: int) -> dict[str, float]:
    return {"pixel": float(step)} if step <= 30 else {"content": 0.25, "D(real)": 0.5}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = tuple(reader.fieldnames or ())
        assert columns[: len(CLOCKS)] == CLOCKS and columns[-len(SCORES) :] == SCORES
        return list(reader)


def test_the_log_has_the_means_since_the_last_row_and_the_scores_of_each_save(make, tmp_path):
    pytest.importorskip("zxingcpp")
    with make() as report:
        for step in range(1, 61):
            report.step(step, losses(step))
            if step == 10:
                assert len(rows(tmp_path / "run")) == 1  # at once, for whoever watches
    log = rows(tmp_path / "run")
    assert [row["step"] for row in log] == ["10", "20", "25", "30", "40", "50", "60"]
    assert [row["phase"] for row in log] == ["pretrain"] * 4 + ["gan"] * 3
    assert [row["pixel"] for row in log] == ["5.5", "15.5", "23", "28", "", "", ""]
    assert [row["content"] for row in log] == [""] * 4 + ["0.25"] * 3
    assert [row["epoch"] for row in log] == ["2.50", "5.00", "6.25", "7.50", "10.00", "12.50", "15.00"]
    saved = ["25", "30", "50", "60"]
    for name in ("psnr", "ssim", "scan %", "psnr bicubic", "ssim bicubic", "scan % bicubic"):
        assert [row["step"] for row in log if row[name]] == saved, name
    assert sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir()) == [
        f"step-0000{s}.png" for s in saved
    ]
    assert not list((tmp_path / "run").glob("generator-epoch-*.h5"))


def test_the_article_keeps_a_generator_every_five_epochs(make, tmp_path):
    with make(preset="article") as report:
        for step in range(1, 61):
            report.step(step, losses(step))
    generators = sorted(path.name for path in (tmp_path / "run").glob("generator-epoch-*.h5"))
    assert generators == [f"generator-epoch-{epoch:03d}.h5" for epoch in (5, 10, 15)]


def test_a_step_is_saved_once(make, tmp_path, capsys):
    with make(save_every=5) as report:
        for step in range(1, 6):
            report.step(step, losses(step))
        report.save(5)  # as Ctrl-C asks for
    assert [row["step"] for row in rows(tmp_path / "run")] == ["5"]
    assert capsys.readouterr().out.count("step      5 of 60") == 1


def test_on_resuming_rows_beyond_the_checkpoint_are_dropped(make, tmp_path):
    with make() as report:
        for step in range(1, 42):
            report.step(step, losses(step))
    with open(tmp_path / "run" / "log.csv", "a") as file:
        file.write("4")  # a row that was cut short; it isn't step 4
    before = rows(tmp_path / "run")
    with make(start=30) as report:
        kept = rows(tmp_path / "run")
        assert [without_blanks(row) for row in kept] == [without_blanks(row) for row in before[:4]]
        for step in range(31, 61):
            report.step(step, losses(step))
    assert [row["step"] for row in rows(tmp_path / "run")] == ["10", "20", "25", "30", "40", "50", "60"]


def without_blanks(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if value}


def test_every_loss_gets_a_column_when_it_first_appears(make, tmp_path):
    """Also in a log that an earlier part of the run, or an earlier tinysrgan with its fixed columns, began."""
    with make() as report:
        for step in range(1, 41):
            report.step(step, losses(step) | ({"total variation": 0.5} if step > 20 else {}))
            if step == 20:
                assert "total variation" not in rows(tmp_path / "run")[0]
    log = rows(tmp_path / "run")
    assert [row["total variation"] for row in log] == ["", "", "0.5", "0.5", "0.5"]
    assert [row["pixel"] for row in log] == ["5.5", "15.5", "23", "28", ""]
    with make(start=40) as report:
        for step in range(41, 51):
            report.step(step, losses(step) | {"edges": 2.0})
    again = rows(tmp_path / "run")
    assert [without_blanks(row) for row in again[:5]] == [without_blanks(row) for row in log]
    assert again[5]["edges"] == "2" and again[5]["total variation"] == "" and again[0]["edges"] == ""


def test_a_loss_that_is_not_finite_is_named_and_not_logged(make, tmp_path):
    with make() as report:
        report.step(1, {"pixel": 1.0})
        with pytest.raises(UserError, match=r"step 2: not finite: content\."):
            report.step(2, {"pixel": 1.0, "content": NAN})
    assert rows(tmp_path / "run") == []


def test_a_new_run_begins_a_new_log(make, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").write_text("step,phase\n10,pretrain\n")
    with make():
        assert rows(tmp_path / "run") == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "step,phase\nten,pretrain\n20,pretrain\n,\n\n40,gan\n",
        "phase,step\nx,20\n",
        "step,mine\n20,7,8,9\n",
        "junk\n1\n",
    ],
)
def test_a_log_that_somebody_spoilt_doesn_t_stop_the_run(content, make, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").write_text(content)
    with make(start=30):
        assert [row["step"] for row in rows(tmp_path / "run")] == ["20"] * ("20" in content)


def test_the_old_log_survives_a_full_disk(make, tmp_path, monkeypatch):
    with make() as report:
        for step in range(1, 31):
            report.step(step, losses(step))
    before = (tmp_path / "run" / "log.csv").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space"), make(start=25):
        pass
    assert (tmp_path / "run" / "log.csv").read_bytes() == before


# ---------------------------------------------------------------- skipped files


def test_skipped_files_are_named_once_each_with_the_reason(make, tmp_path, capsys):
    for name in ("train.png", "held.png"):
        (tmp_path / name).write_bytes(b"broken")
    report = make(25, 1, training=[*CODES[:3], tmp_path / "train.png"], held_out=[tmp_path / "held.png", *CODES[8:11]])
    with report:
        for step in range(25, 28):
            report.pairs.batch(step, 2)
            report.step(step + 1, losses(step))
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(lines) == 2
    for name in ("train.png", "held.png"):
        assert sum(line.count(name) for line in lines) == 1
    assert all("image" in line for line in lines)


def test_files_that_only_the_final_table_meets_are_named_too(make, tmp_path, capsys):
    """The validation while training looks at no more than 48 images, the table at up to 400."""
    (tmp_path / "late.png").write_bytes(b"broken")
    with make(59, held_out=[*CODES[:48], tmp_path / "late.png"]) as report:
        report.step(60, losses(60))
    assert "late.png" not in capsys.readouterr().out
    report.finish()
    assert capsys.readouterr().out.count("late.png") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file name is always Unicode")
def test_a_name_that_is_no_unicode_can_be_printed(make, tmp_path, capsysbinary):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(b"broken")
    with make(59, held_out=[path, CODES[8]]) as report:
        report.step(60, losses(60))
    assert b"skipped" in capsysbinary.readouterr().out


# ---------------------------------------------------------------- without the optional packages


def finish(report: RunLog) -> None:
    with report:
        report.step(60, losses(60))
    report.finish()


def test_without_the_reader_it_says_once_what_to_install(make, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "zxingcpp", None)
    finish(make(59))
    captured = capsys.readouterr()
    assert captured.err.count("pip install zxing-cpp") == 1 and "zxing" not in captured.out
    assert "scan" not in captured.out and "PSNR" in captured.out
    (row,) = rows(tmp_path / "run")
    assert row["psnr"] and not row["scan %"] and not row["scan % bicubic"]
    with Image.open(tmp_path / "run" / "pictures" / "step-000060.png") as picture:
        assert picture.width > 4 * 32


def test_with_the_reader_it_says_nothing_of_it(make, capsys):
    pytest.importorskip("zxingcpp")
    finish(make(59))
    captured = capsys.readouterr()
    assert "zxing" not in captured.err + captured.out
    assert "scans" in captured.out


def test_without_matplotlib_it_says_so_and_all_else_is_there(make, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    finish(make(59))
    captured = capsys.readouterr()
    assert captured.err.count("pip install matplotlib") == 1
    assert "losses.png" not in captured.out and not (tmp_path / "run" / "losses.png").exists()
    assert "generator.h5" in captured.out and (tmp_path / "run" / "generator.h5").exists()


def test_with_matplotlib_there_are_curves(make, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    finish(make(59))
    assert "losses.png" in capsys.readouterr().out
    with Image.open(tmp_path / "run" / "losses.png") as picture:
        assert picture.width == 1000


def test_the_bar_counts_steps_and_starts_where_the_run_goes_on(make, capsys):
    with make(30) as report:
        report.step(31, {"pixel": 0.125})
        assert report.bar.n == 31 and report.bar.total == 60
        assert "pixel 0.125" in report.bar.postfix
    assert "31/60" in (err := capsys.readouterr().err) and "steps/s" in err


# ---------------------------------------------------------------- words


def test_probabilities_and_losses_by_name():
    text = describe({"content": 12.3456, "adversarial": 0.00123, "discriminator fake": 0.5, "D(fake)": 0.456})
    assert text == "content 12.3, adv 0.00123, d fake 0.5, D(fake) 0.46"


def test_the_line_beside_bicubic():
    bicubic = {"psnr": 10, "ssim": 0.5, "scan %": 4}
    line = beside_bicubic({"psnr": 12.345, "ssim": 0.6789, "scan %": 98.4}, bicubic)
    assert line == "PSNR 12.35 dB (bicubic 10.00), SSIM 0.679 (0.500), scans 98 % (4 %)"
    assert "scans" not in beside_bicubic({"psnr": 12.345, "ssim": 0.6789, "scan %": NAN}, bicubic | {"scan %": NAN})

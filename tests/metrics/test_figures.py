"""The figure and the curves, checked by their pixels."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tinysrgan.core.errors import UserError
from tinysrgan.metrics import figures
from tinysrgan.metrics.curves import loss_curves
from tinysrgan.metrics.figures import FRAME, GAP, GREEN, RED, save_picture, strip

WHITE, GREY, BLUE = (255, 255, 255), (90, 90, 90), (20, 40, 200)
CURVE, BASELINE = (31, 119, 180), (128, 128, 128)  # colours of the first curve and of bicubic


def flat(height, width, colour=GREY):
    return np.full((height, width, 3), colour, np.uint8)


def corner(canvas, row, column, rows, height, width):
    """Return where the image in a full cell begins.

    It is measured from the figure's lower edge, because the titles' height varies.
    """
    y = canvas.height - (rows - row) * (height + 2 * FRAME + GAP) + FRAME
    return GAP + column * (width + 2 * FRAME + GAP) + FRAME, y


def load(path):
    """Return a picture's pixels in a signed type, for subtraction."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(path, colour):
    """Count the pixels of this colour, within rounding."""
    return int((abs(load(path) - colour).max(axis=2) <= 1).sum())


# ---------------------------------------------------------------- the strip


def test_size_titles_and_places():
    rows = [[flat(40, 60, BLUE), flat(40, 60)], [flat(40, 60), flat(40, 60, BLUE)], [flat(40, 60), flat(40, 60)]]
    canvas = strip(rows, ["LR", "HR"])
    assert canvas.mode == "RGB" and canvas.width == GAP + 2 * (60 + 2 * FRAME + GAP)
    title_height = canvas.height - GAP - 3 * (40 + 2 * FRAME + GAP)
    assert 10 < title_height < 40
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)):
        x, y = corner(canvas, row, column, 3, 40, 60)
        image = np.asarray(canvas)[y : y + 40, x : x + 60]
        assert np.array_equal(image, rows[row][column])
    for column in range(2):  # each title is drawn in black over its column
        x = corner(canvas, 0, column, 3, 40, 60)[0]
        title = np.asarray(canvas.convert("L"))[: GAP + title_height, x : x + 60]
        assert title.min() < 60 and title.max() == 255


def test_frames_have_their_colour_and_hide_nothing():
    rows = [[flat(32, 32)] * 3, [flat(32, 32)] * 3]
    frames = [[True, False, None], [None, np.True_, np.False_]]
    canvas = strip(rows, ["a", "b", "c"], frames)
    pixels = np.asarray(canvas)
    for row in range(2):
        for column in range(3):
            x, y = corner(canvas, row, column, 2, 32, 32)
            expected = {True: GREEN, False: RED, None: WHITE}[
                None if frames[row][column] is None else bool(frames[row][column])
            ]
            around = pixels[y - FRAME : y + 32 + FRAME, x - FRAME : x + 32 + FRAME].copy()
            assert (around[FRAME:-FRAME, FRAME:-FRAME] == GREY).all()
            around[FRAME:-FRAME, FRAME:-FRAME] = expected
            assert (around == expected).all()
            assert (pixels[y - FRAME - 1, x - FRAME : x + 32] == WHITE).all()  # with a gap outside


def test_small_images_are_enlarged_by_nearest():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    canvas = strip([[small, flat(32, 32)]], ["LR", "HR"])
    x, y = corner(canvas, 0, 0, 1, 32, 32)
    expected = np.kron(small, np.ones((4, 4, 1), np.uint8))
    assert np.array_equal(np.asarray(canvas)[y : y + 32, x : x + 32], expected)


def test_narrow_images_stand_in_the_middle_of_their_column():
    canvas = strip([[flat(30, 10, BLUE), flat(30, 50)]], ["a", "b"], [[True, None]])
    x, y = corner(canvas, 0, 0, 1, 30, 50)
    line = np.asarray(canvas)[y + 15]
    assert (line[x + 20 : x + 30] == BLUE).all()
    assert (line[x + 20 - FRAME : x + 20] == GREEN).all() and (line[x + 30 : x + 30 + FRAME] == GREEN).all()
    assert (line[x : x + 20 - FRAME] == WHITE).all()


def test_grey_images_are_taken():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    canvas = strip([[grey, grey[:, :, None], np.stack([grey] * 3, 2)]], ["a", "b", "c"])
    cells = []
    for column in range(3):
        x, y = corner(canvas, 0, column, 1, 16, 16)
        cells.append(np.asarray(canvas)[y : y + 16, x : x + 16])
    assert np.array_equal(cells[0], cells[2]) and np.array_equal(cells[1], cells[2])
    assert np.array_equal(cells[0][:, :, 1], grey)


def test_a_long_title_stays_over_its_column():
    canvas = strip([[flat(100, 100)] * 2], ["", "super-resolution of a code"])
    dark = np.flatnonzero((np.asarray(canvas.convert("L"))[:20] < 128).any(axis=0))
    x, _ = corner(canvas, 0, 1, 1, 100, 100)
    assert x - FRAME <= dark.min() and dark.max() < x + 100 + FRAME


@pytest.mark.parametrize(
    "rows, titles, frames",
    [
        ([], ["a"], None),
        ([[]], [], None),
        ([[flat(8, 8)]], ["a", "b"], None),
        ([[flat(8, 8)], [flat(8, 8)] * 2], ["a"], None),
        ([[flat(8, 8)]], ["a"], [[True, False]]),
        ([[flat(8, 8)]], ["a"], [[True], [False]]),
    ],
)
def test_rows_titles_and_frames_that_do_not_match(rows, titles, frames):
    with pytest.raises(ValueError, match="as many images and frames in each row as it has titles"):
        strip(rows, titles, frames)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8), np.uint8), np.zeros(8, np.uint8)]
)
def test_what_is_no_image(image):
    with pytest.raises(ValueError, match="A strip takes uint8 images"):
        strip([[image]], ["a"])


# ---------------------------------------------------------------- saving


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "new/folder/a.webp"])
def test_save_picture(name, tmp_path):
    save_picture(Image.fromarray(flat(8, 12, BLUE)), tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.size == (12, 8)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_save_picture_replaces_what_was_there(tmp_path):
    path = tmp_path / "a.png"
    save_picture(Image.fromarray(flat(8, 8)), path)
    save_picture(Image.fromarray(flat(8, 8, BLUE)), str(path))
    assert count(path, BLUE) == 64


def test_a_save_that_fails_leaves_the_old_picture_and_nothing_else(tmp_path):
    path = tmp_path / "a.jpg"
    save_picture(Image.fromarray(flat(8, 8)), path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="RGBA"):  # JPEG has no transparency
        save_picture(Image.new("RGBA", (8, 8)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_onto_a_folder_leaves_no_half_file(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError):
        save_picture(Image.fromarray(flat(8, 8)), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]


@pytest.mark.parametrize("name", ["a", "a.txt", "a.png.bak"])
def test_save_picture_needs_an_image_format(name, tmp_path):
    with pytest.raises(UserError, match=r"must end in the name of an image format, as in \.png"):
        save_picture(Image.fromarray(flat(8, 8)), tmp_path / name)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- the curves


@pytest.fixture
def draw(tmp_path):
    """Return a function that writes rows (dicts) or a text as a log, draws it and returns the picture's path."""
    pytest.importorskip("matplotlib")

    def draw(log):
        if not isinstance(log, str):
            names = list(dict.fromkeys(name for row in log for name in row))
            with open(tmp_path / "log.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, names, restval="")
                writer.writeheader()
                writer.writerows(log)
        else:
            (tmp_path / "log.csv").write_text(log)
        loss_curves(tmp_path / "log.csv", tmp_path / "curves.png")
        assert load(tmp_path / "curves.png").shape[1] == 1000
        return tmp_path / "curves.png"

    return draw


def panels(path):
    return round((len(load(path)) - 50) / 230)


def test_a_whole_run(draw):
    rows = []
    for step in range(10, 3010, 10):
        row = {"step": step, "phase": "pretrain" if step <= 1000 else "gan", "images/s": 30, "pixel": 100 / step}
        if step > 1000:
            row |= {"content": 1000 / step, "adversarial": 0.7, "D(fake)": 0.4, "D(real)": 0.6}
        if step % 500 == 0:
            row |= {"psnr": 10 + step / 1000, "psnr bicubic": 9.97, "scan %": step / 40, "scan % bicubic": 1.3}
        rows.append(row)
    path = draw(rows)
    assert panels(path) == 4  # losses, probabilities, PSNR, scan rate
    assert count(path, CURVE) > 1000 and count(path, BASELINE) > 200


def test_the_line_stands_only_where_the_phase_changes(draw):
    def dotted(path):
        """Return the columns right of the axis of which a quarter is grey, but darker than the grid."""
        panel = load(path)[45:220, 100:]
        grey = (np.ptp(panel, axis=2) < 8) & (panel[:, :, 0] < 200)
        return 100 + np.flatnonzero(grey.mean(axis=0) > 0.25)

    assert not len(dotted(draw([{"step": i, "phase": "pretrain", "pixel": 1 + i} for i in range(5)])))
    path = draw([{"step": i, "phase": "pretrain" if i < 3 else "gan", "pixel": 1 + i} for i in range(5)])
    assert 0 < len(dotted(path)) <= 4 and 720 < dotted(path).mean() < 780  # step 3 of 0 to 4


@pytest.mark.parametrize("blank", ["", " ", "nan", "inf", "-inf"])
def test_blanks_are_no_points(blank, draw):
    path = draw(f"step,phase,pixel,content\n1,gan,3,{blank}\n2,gan,{blank},2\n3,gan,1,1\n")
    assert panels(path) == 1 and count(path, CURVE) > 500  # the curve bridges the gap


def test_one_row(draw):
    path = draw("step,phase,pixel,psnr,psnr bicubic\n10,pretrain,0.3,10,9\n")
    assert panels(path) == 2
    point = abs(load(path)[40:220, 100:] - CURVE).max(axis=2) <= 1  # below the legend, right of the axis
    assert 5 < point.sum() < 100


def test_a_log_that_was_cut_off_while_it_was_written(draw):
    assert panels(draw("step,phase,pixel,psnr\n10,gan,0.3,11\n20,gan,0.2,12\n30,ga")) == 2


def test_losses_that_are_not_positive(draw):
    """A logarithmic axis cannot show zero. A negative loss is drawn on its own linear axis."""
    assert panels(draw("step,phase,pixel\n1,gan,1\n2,gan,0\n3,gan,0.1\n")) == 1
    assert panels(draw("step,phase,pixel,odd,nought\n1,gan,1,-2,0\n2,gan,1,3,0\n")) == 2


def test_a_log_without_phases(draw):
    assert panels(draw("step,D(real)\n1,0.5\n2,0.75\n")) == 1


@pytest.mark.parametrize(
    "log", ["step,phase,pixel\n", "step,phase,pixel\n1,gan,\n2,gan,nan\n", "step,images/s\n1,30\n"]
)
def test_a_log_with_nothing_to_draw_yet(log, draw, tmp_path):
    with pytest.raises(UserError, match=r"log\.csv holds no numbers to draw yet\.$"):
        draw(log)
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("log", ["", "epoch,pixel\n1,2\n", "\x89PNG\0\n\x1a\n\n"])
def test_what_is_no_log(log, draw):
    with pytest.raises(UserError, match=r"log\.csv has no column 'step'"):
        draw(log)


def test_binary_garbage_is_no_log(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "log.csv").write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(UserError, match=r"log\.csv has no column 'step'"):
        loss_curves(tmp_path / "log.csv", tmp_path / "curves.png")


def test_a_word_where_a_number_belongs(draw):
    with pytest.raises(UserError, match=r"log\.csv, line 4: column 'pixel' holds 'hello', which is no number\.$"):
        draw("step,phase,pixel\n1,gan,1\n\n2,gan,hello\n")


def test_no_log_at_all(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(FileNotFoundError, match=r"log\.csv"):
        loss_curves(tmp_path / "log.csv", tmp_path / "curves.png")


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        loss_curves(tmp_path / "log.csv", tmp_path / "curves.png")


def test_nothing_heavy_is_imported_until_needed(draw, tmp_path):
    """The figure needs Pillow only, and the curves do not use pyplot's global state."""
    (tmp_path / "log.csv").write_text("step,pixel\n1,2\n2,1\n")
    program = (
        "import sys; import tinysrgan.metrics.curves as p; assert 'matplotlib' not in sys.modules; "
        "p.loss_curves('log.csv', 'curves.png'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = figures.__file__.rsplit("tinysrgan", 1)[0]
    environment = {"PYTHONPATH": root, "MPLCONFIGDIR": str(tmp_path / "config")}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert count(tmp_path / "curves.png", CURVE) > 500

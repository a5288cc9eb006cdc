"""The Markdown files: every link exists; the README's lengths of files are right, and its commands read its picture."""

import re
from pathlib import Path

import numpy as np
import pytest
from mistakes import python
from PIL import Image

from tinysrgan.metrics import qr_reader

ROOT = Path(__file__).parents[1]
PAGES = [path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


def test_the_reading_order_has_the_lengths_of_the_files():
    rows = re.findall(r"^\| `([\w/.]+)` \| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) >= 6
    for name, lines in rows:
        length = len((ROOT / "tinysrgan" / name).read_text(encoding="utf-8").splitlines())
        assert abs(length - int(lines)) <= max(3, length // 10), f"{name} has {length} lines"


def test_the_readme_commands_read_the_blurry_picture_that_no_reader_reads(tmp_path):
    pytest.importorskip("zxingcpp")
    with Image.open(ROOT / "examples" / "blurry.png") as image:
        for times in (1, 2, 4):
            enlarged = image.resize((times * image.width, times * image.height), Image.Resampling.LANCZOS)
            assert not qr_reader.read_codes(np.asarray(enlarged))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\S+python -m (tinysrgan\.\w+) examples/blurry\.png (\S+)(.*?)#", readme, re.M)
    assert [command for command, *_ in commands] == ["tinysrgan.rescue", "tinysrgan.upscale"]
    for command, output, options in commands:
        run = python("-m", command, ROOT / "examples" / "blurry.png", tmp_path / output, *options.split())
        assert run.returncode == 0 and "https://arxiv.org/abs/1609.04802" in run.stdout, run
        with Image.open(tmp_path / output) as clear:
            assert qr_reader.read_codes(np.asarray(clear.convert("L"))) == ["https://arxiv.org/abs/1609.04802"]

"""The Markdown files: links lead somewhere, and the README's reading order has the files' lengths."""

import re
from pathlib import Path

import pytest

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

"""The pages of the documentation, their code blocks and links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: the page's path below the root, the line of its fence, the word after the
    fence, what stands in it."""

    page: str
    line: int
    language: str
    text: str


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    name = str(page.relative_to(ROOT))
    return [
        Block(name, token.map[0] + 1, token.info.strip(), token.content)
        for token in _tokens(page)
        if token.type == "fence"
    ]


def inline(page: Path) -> Iterator[tuple[int, str]]:
    """(line of its paragraph or row, text) of what the page's sentences and tables have in
    backticks."""
    for token in _tokens(page):
        for child in token.children or ():
            if child.type == "code_inline":
                yield token.map[0] + 1, child.content


def links(page: Path) -> Iterator[str]:
    """What the page's links and pictures point to."""
    for token in _tokens(page):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target:
                yield str(target)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in its address, as GitHub makes them."""
    tokens = _tokens(page)
    headings = [
        tokens[place + 1].content
        for place, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

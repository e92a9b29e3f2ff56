"""A report as one HTML file: headings, tables and figures, nothing to load from elsewhere."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from viv1t.errors import UserError

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto }
th, td { padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
th { border-bottom: 2px solid #1a1a1a; font-weight: 600 } td { border-bottom: 1px solid #e4e4e4 }
th.text, td.text { text-align: left }
figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto } figcaption, .note { font-size: 0.85rem; color: #444 }
a { color: #0072B2 } details { margin-top: 1rem } summary { cursor: pointer }
.warning { color: #A03000; font-weight: 600 }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """The whole document."""
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{CSS}</style></head>\n'
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    return "\n".join([f"<h2>{html.escape(title)}</h2>", *parts])


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Rows of strings; the first `texts` columns are text, the others numbers aligned to the right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        marked = [f'<{tag} class="text">' if i < texts else f"<{tag}>" for i in range(len(cells))]
        return "".join(f"{mark}{html.escape(str(cell))}</{tag}>" for mark, cell in zip(marked, cells, strict=True))

    body = "\n".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', columns)}</tr></thead>\n<tbody>{body}</tbody></table>"


def details(title: str, content: str) -> str:
    """Folded away until clicked."""
    return f"<details><summary>{html.escape(title)}</summary>\n{content}</details>"


def links(paths: Sequence[Path], root: Path) -> str:
    """Links to files, relative to the folder of the report."""
    each = (html.escape(path.relative_to(root).as_posix()) for path in paths)
    return " · ".join(f'<a href="{path}">{path}</a>' for path in each)


def figure(path: Path, root: Path) -> str:
    """A PNG inside the page, with the caption stored in it, and links to its siblings (.pdf, .csv)."""
    try:
        with Image.open(path) as image:
            caption, width = image.info.get("Description", ""), image.width
    except OSError:
        raise UserError(f"{path}: not a readable PNG. Delete it and draw the figure again.") from None
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    siblings = [other for suffix in (".pdf", ".csv") if (other := path.with_suffix(suffix)).is_file()]
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(caption or path.stem)}" '
        f'style="width: min(100%, {width // 2}px)">\n'
        f"<figcaption>{html.escape(caption)} {links(siblings, root)}</figcaption></figure>"
    )

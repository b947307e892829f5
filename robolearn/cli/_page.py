"""Bits of the pages that commands write: the style, tables, and the frame; light and dark."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --line: #dfe4ea; --card: #fff;
  --page: #f3f5f8; --good: #1f8f57; --accent: #2f6fc4 }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ebf0; --soft: #9aa6b5; --line: #2c3440;
  --card: #181d25; --page: #10141a; --good: #4cc38a; --accent: #6ea8f0 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 1040px; margin: 0 auto; padding: 44px 20px 60px }
h1 { font-size: 30px; line-height: 1.25; margin: 0 0 14px; letter-spacing: -.01em }
h2 { font-size: 19px; margin: 0 0 12px }
h3 { font-size: 15px; margin: 16px 0 6px }
.robot { font-size: 25px; margin: 46px 0 0 }
.cards + .part, h1 + .part { margin: 26px 0 -8px }
a { color: var(--accent) }
p { margin: 0 0 10px }
.soft, figcaption { color: var(--soft) }
figcaption, .small { font-size: 14px }
section, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px }
section { padding: 22px 24px; margin-top: 18px }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px;
  margin-top: 22px }
.card { padding: 14px 18px }
.card b { display: block; font-size: 27px; line-height: 1.3; font-weight: 650 }
.card.good b { color: var(--good) }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 10px 26px }
video, svg { width: 100%; height: auto; display: block }
video { border-radius: 8px }
figure { margin: 0 }
figcaption { margin-top: 8px }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin-top: 6px }
th { text-align: left; font-weight: 600; color: var(--soft) }
td, th { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top }
tr:last-child td { border-bottom: 0 }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap }
pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; background: var(--page); overflow-x: auto;
  border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; margin: 8px 0 0 }
summary { cursor: pointer; color: var(--accent); margin-top: 12px }
"""


def write(path: Path, title: str, body: str) -> None:
    """The whole page, or nothing of it."""
    part = path.with_suffix(".part")
    part.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"<main>{body}</main></html>"
    )
    part.replace(path)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def table(head: tuple[str, ...], rows: list[Any]) -> str:
    titles = "".join(f"<th>{html.escape(t)}</th>" for t in head)
    body = "".join(f"<tr>{''.join(_cell(*pair) for pair in enumerate(row))}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{titles}</tr>{body}</table></div>'


def _cell(column: int, value: Any) -> str:
    kind = ' class="n"' if column == 0 else ""
    return f"<td{kind}>{html.escape(str(value))}</td>"

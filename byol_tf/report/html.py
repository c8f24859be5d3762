"""The report as one HTML page, with its pictures embedded and no script."""

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from byol_tf import __version__
from byol_tf.config.diff import recipe_differences
from byol_tf.config.loading import resolved_json
from byol_tf.logs import counted
from byol_tf.runs.summary import ACCURACIES, RunFacts, verdict

_MAX_LISTED = 20  # of skipped photos; the others are counted

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --quiet: #6b6b70; --page: #ffffff; --line: #dcdce0; --mark: #1f5fbf; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --quiet: #a0a0a6; --page: #17171a; --line: #3a3a40; --mark: #7fb0ff; } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 58rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
.verdict { font-size: 1.1rem; border-left: 4px solid var(--mark); padding-left: 1rem; margin: 0 0 1.5rem; }
.quiet, figcaption, footer { color: var(--quiet); font-size: .9rem; }
table { border-collapse: collapse; }
td, th { padding: .3rem 1.2rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; font-weight: normal; }
thead th { color: var(--quiet); font-size: .9rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
figure { margin: 1rem 0 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; padding: 6px; box-sizing: border-box; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
summary { cursor: pointer; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; color: #000; background: #fff; } figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; } }
"""


ClassConfusion = tuple[str, str, float, int]
"""(class, class that the probe predicts instead, fraction of the class, images of the class)."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        heading: above it.
        text: under it: how it is read.
        png: the picture; None where there is none.
        missing: why there is none.
    """

    heading: str
    text: str
    png: bytes | None
    missing: str = ""


def report_page(
    facts: RunFacts, pictures: Sequence[Picture], confusions: Sequence[ClassConfusion]
) -> str:
    """Builds the page.

    Args:
        facts: of the run.
        pictures: in reading order.
        confusions: the most frequent first.

    Returns:
        The page as HTML.
    """
    sections = [
        f"<h1>{escape(facts.title)}</h1>",
        f'<p class="verdict">{escape(" ".join(verdict(facts)))}</p>',
        _accuracies(facts),
        *map(_picture, pictures),
        _confusions(confusions),
        _differences(facts),
        _environment(facts),
        _skipped(facts),
        "<h2>All settings</h2>",
        "<details><summary>config.json, every key with its "
        f"value</summary><pre>{escape(resolved_json(facts.config))}</pre></details>",
        f"<footer><p>Written by byol_tf {escape(__version__)} from the files in "
        f"{escape(str(facts.root))}.</p></footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(facts.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + "\n</body>\n</html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Builds a table; with `numbers` all columns but the first are aligned as numbers."""
    attribute = ' class="number"' if numbers else ""
    thead = ""
    if any(head):
        first, *others = head
        cells = "".join(f"<th{attribute}>{escape(name)}</th>" for name in others)
        thead = f"<thead><tr><th>{escape(first)}</th>{cells}</tr></thead>"
    body = ""
    for first, *others in rows:
        cells = "".join(f"<td{attribute}>{escape(cell)}</td>" for cell in others)
        body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    return f'<div class="wide"><table>{thead}<tbody>{body}</tbody></table></div>'


def _accuracies(facts: RunFacts) -> str:
    rows = [
        (name, *map(str, accuracies))
        for measure, name in ACCURACIES
        if (accuracies := facts.accuracies(measure)) is not None
    ]
    if facts.supervised is not None:
        rows.append(("supervised on the same labels", "", str(facts.supervised)))
    if facts.chance is not None:
        rows.append(("always the most frequent class", "", f"{facts.chance:.1%}"))
    if not rows:
        return '<p class="quiet">No accuracy: there are no labelled images.</p>'
    system = str((facts.result or {}).get("system", "trained"))
    note = ""
    if facts.test_images is not None:
        images = counted(facts.test_images, facts.probe_image)
        note = f'<p class="quiet">In brackets: 95% interval, from {images}.</p>'
    return (
        "<h2>Accuracy on frozen features</h2>"
        + _table(("", facts.start, system), rows, numbers=True)
        + note
    )


def _picture(picture: Picture) -> str:
    if picture.png is None:
        return (
            f'<h2>{escape(picture.heading)}</h2><p class="quiet">Not shown: '
            f"{escape(picture.missing)}.</p>"
        )
    data = base64.b64encode(picture.png).decode()
    return (
        f'<h2>{escape(picture.heading)}</h2><figure><img alt="{escape(picture.heading)}" '
        f'src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.text)}</figcaption></figure>"
    )


def _confusions(confusions: Sequence[ClassConfusion]) -> str:
    if not confusions:
        return ""
    return _table(
        ("class", "predicted instead", "of the class"),
        [
            (label, predicted, f"{round(fraction * images):,} of {images:,} ({fraction:.0%})")
            for label, predicted, fraction, images in confusions
        ],
    )


def _differences(facts: RunFacts) -> str:
    name, differing = recipe_differences(facts.config)
    heading = f"<h2>What differs from {escape(name)}</h2>"
    if not differing:
        return heading + "<p>Nothing that matters for what is learned.</p>"
    return heading + _table(("key", "there", "here"), differing)


def _environment(facts: RunFacts) -> str:
    environment, result, last = facts.environment, facts.result or {}, facts.rows[-1]
    rows = [
        ("epochs", f"{last['epoch']:.0f} of {facts.config.training.epochs}"),
        ("exported epoch", str(facts.exported_epoch)),
        (
            "images to learn from",
            f"{result['pretrain_images']:,}" if "pretrain_images" in result else "",
        ),
        ("steps", f"{result['steps']:,}" if "steps" in result else ""),
        (
            "time of steps",
            f"{result['seconds']:,.0f} s, {result['images_per_second']:,.0f} images/s"
            if {"seconds", "images_per_second"} <= result.keys()
            else "",
        ),
        ("python", str(environment.get("python", ""))),
        ("platform", str(environment.get("platform", ""))),
        ("processors", str(environment.get("processors", ""))),
        (
            "packages",
            ", ".join(
                f"{name} {version}" for name, version in environment.get("packages", {}).items()
            ),
        ),
        ("code", str(environment.get("git") or "no git repository")),
        ("images", str(environment.get("data_fingerprint", ""))),
        ("weights", str(result.get("weights_digest", ""))),
    ]
    command = shlex.join(environment.get("command", []))
    return (
        "<h2>How it was run</h2>"
        + (f"<pre>{escape(command)}</pre>" if command else "")
        + _table(("", ""), [row for row in rows if row[1]])
    )


def _skipped(facts: RunFacts) -> str:
    if not facts.skipped:
        return ""
    shown, more = facts.skipped[:_MAX_LISTED], len(facts.skipped) - _MAX_LISTED
    return (
        "<h2>Photos that couldn't be read</h2>"
        + _table(("path", "reason"), shown)
        + (f"<p>And {more:,} more.</p>" if more > 0 else "")
    )

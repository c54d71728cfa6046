"""Text from elsewhere, made fit for a sentence of ours, or for a table in HTML."""

import html
from collections.abc import Iterable, Sequence


def html_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", below: str = ""
) -> str:
    """A table in HTML, in which nothing is markup but the table itself."""

    def cells(kind: str, texts: Sequence[str]) -> str:
        inside = "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in texts)
        return f"<tr>{inside}</tr>"

    body = "".join(cells("td", row) for row in rows)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    paragraph = f"<p>{html.escape(below)}</p>" if below else ""
    return f"<table>{title}<thead>{cells('th', headings)}</thead><tbody>{body}</tbody></table>{paragraph}"


def one_line(text: object, limit: int = 200) -> str:
    """`text` on one line, without control characters and a final full stop, cut to `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return (line if len(line) <= limit else f"{line[: limit - 3]}...").rstrip(".")


# What would be a tag, a cell's end, code or a link in Markdown; elsewhere brackets are left alone.
_MARKDOWN = {
    "<": "&lt;",
    "|": "&#124;",
    "`": "&#96;",
    "](": "]&#40;",
    "][": "]&#91;",
    "]:": "]&#58;",
}


def in_markdown(text: str) -> str:
    """`text` so that Markdown shows it as it is: no HTML, links, code or cells of its own."""
    for found, shown in _MARKDOWN.items():
        text = text.replace(found, shown)
    return text

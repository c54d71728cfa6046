"""Text from elsewhere, made fit for a sentence of ours."""


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

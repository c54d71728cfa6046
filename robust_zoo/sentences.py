"""Text from elsewhere, made fit for a sentence of ours."""


def one_line(text: object, limit: int = 200) -> str:
    """`text` on one line, without control characters and a final full stop, cut to `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return (line if len(line) <= limit else f"{line[: limit - 3]}...").rstrip(".")

"""BibTeX of this library and of the papers that defenses come from, kept in papers.bib."""

import pathlib

_ENTRIES = pathlib.Path(__file__).with_name("papers.bib").read_text(encoding="utf-8").split("\n\n")


def bibtex(paper: str) -> str:
    """The entry of a paper, "arXiv:1706.06083", or "" for one that papers.bib does not have."""
    name, _, number = paper.partition(":")
    found = (entry for entry in _ENTRIES if f"eprint = {{{number}}}" in entry)
    return next(found, "").strip() if name == "arXiv" else ""


def own_bibtex() -> str:
    """The entry of this library."""
    return _ENTRIES[0].strip()

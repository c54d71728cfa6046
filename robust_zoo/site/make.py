"""make_site(): a folder of pages, from records."""

import csv
import io
import itertools
import json
import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from robust_zoo import __version__
from robust_zoo.files import write_text
from robust_zoo.record import RobustnessRecord
from robust_zoo.report.card import model_card
from robust_zoo.report.citations import bibtex, own_bibtex
from robust_zoo.site import charts
from robust_zoo.site.rows import COLUMNS, Cell, ball_of, cells_of, data_of, rank_of

_TEMPLATES = pathlib.Path(__file__).with_name("templates")
_STATIC = ("style.css", "leaderboard.js", "charts.js")
DATA = "leaderboard.json"
MARKER = ".robust-zoo-site.json"  # by which a folder is known as a site, with what it wrote


class SiteModel(NamedTuple):
    """A model of the site.

    Attributes:
        record: its record.
        role: "robust", "baseline", "study" or "".
        handle: where it is published, "" where it is not; a name of the zoo loads by itself.
        history: of its training, by epoch, see `robust_zoo.load_history`; empty where there is none.
        examples: a picture of adversarial examples, a PNG file, see `robust_zoo.plots.examples`; None for none.
    """

    record: RobustnessRecord
    role: str = ""
    handle: str = ""
    history: Sequence[Mapping[str, float]] = ()
    examples: pathlib.Path | None = None


class _Libraries(NamedTuple):
    jinja2: Any
    bundle: str  # Vega, as one script
    tables: str  # DataTables, as a module


def make_site(directory: str | pathlib.Path, models: Sequence[SiteModel]) -> pathlib.Path:
    """Writes the leaderboard and a page for each model; no page asks anybody for anything.

    The pages work from the file system and from any web server. Tables are those of datasets and threat models, ranked by
    worst-case accuracy. Everything is written beside its place and moved there at the end.

    Args:
        directory: folder to write: new, empty, or a site, whose own files are replaced.
        models: at least one.

    Returns:
        The folder's index.html.

    Raises:
        ValueError: no models, or a folder that holds something else.
        ImportError: the libraries of the extra `site` are not installed.
    """
    if not models:
        raise ValueError("models must be at least one, got none.")
    target = pathlib.Path(directory).resolve()
    if target.exists() and not _may_be_replaced(target):
        raise ValueError(f"directory must be new, empty or a site, got {str(target)!r}.")
    libraries = _libraries()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        made = pathlib.Path(scratch) / "site"
        (made / "models").mkdir(parents=True)
        _write(made, models, libraries)
        files = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
        write_text(made / MARKER, json.dumps({"files": files}))
        if target.exists():
            _replace(target, made, files)
        else:
            made.rename(target)
    return target / "index.html"


def _may_be_replaced(target: pathlib.Path) -> bool:
    return target.is_dir() and ((target / MARKER).is_file() or not any(target.iterdir()))


def _replace(target: pathlib.Path, made: pathlib.Path, files: Sequence[str]) -> None:
    """Moves new files over a site; of the old ones goes what the site itself wrote, and nothing else."""
    try:
        old = json.loads((target / MARKER).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):  # of an empty folder
        old = []
    (target / "models").mkdir(exist_ok=True)
    for name in (*files, MARKER):
        (made / name).replace(target / name)
    for name in set(map(str, old)) - set(files):
        path = (target / name).resolve()
        if path.is_relative_to(target):
            path.unlink(missing_ok=True)


def _libraries() -> _Libraries:
    try:
        import altair  # noqa: F401  # which draws the charts
        import itables
        import jinja2
        import vl_convert
    except ImportError as error:
        raise ImportError(
            f"the site needs {error.name}, which is not installed: pip install 'robust-zoo[site]'."
        ) from None
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    tables = pathlib.Path(itables.__file__).parent / "html" / "dt_bundle.js"
    return _Libraries(jinja2, bundle, tables.read_text(encoding="utf-8"))


def _write(made: pathlib.Path, models: Sequence[SiteModel], libraries: _Libraries) -> None:
    environment = libraries.jinja2.Environment(
        loader=libraries.jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=libraries.jinja2.StrictUndefined,
    )
    environment.filters |= {"data": _in_script, "breakable": _breakable}
    environment.globals |= {"version": __version__, "columns": COLUMNS}
    ranked = sorted(
        models,
        key=lambda model: (
            model.record.dataset.name,
            *_order_of(model.record),
            *rank_of(model.record),
        ),
    )
    pages = _pages(ranked)
    data = [
        data_of(model.record, model.role, page, model.handle)
        for model, page in zip(ranked, pages, strict=True)
    ]
    tables = _tables(ranked, pages)
    for name in _STATIC:
        shutil.copyfile(_TEMPLATES / name, made / name)
    write_text(made / "vega.js", libraries.bundle)
    # A module cannot be imported from the file system, but from a text can.
    write_text(made / "datatables.js", f"window.DATATABLES = {json.dumps(libraries.tables)};\n")
    shown = {
        "tables": tables,
        "data": data,
        "scatter": charts.scatter(data),
        "curves": charts.curves(),
        "choices": {
            key: sorted({str(model[key]) for model in data if model[key] not in ("", None)})
            for key in ("dataset_name", "norm", "defense", "role")
        },
        "root": "",
    }
    write_text(made / "index.html", environment.get_template("index.html").render(shown))
    write_text(made / DATA, json.dumps(data, indent=1))
    write_text(made / "leaderboard.csv", _csv(tables))
    page_template = environment.get_template("model.html")
    for model, page, about in zip(ranked, pages, data, strict=True):
        told: dict[str, Any] = {
            "model": about,
            "card": _card(model),
            "curve": charts.curves([about]) if len(about["curve"]) > 1 else None,
            "history": charts.history(model.history) if model.history else None,
            "examples": None,
            "bibtex": "\n\n".join(filter(None, [own_bibtex(), bibtex(about["paper"])])),
            "root": "../",
        }
        if model.examples is not None:
            told["examples"] = f"{pathlib.PurePosixPath(page).stem}.png"
            shutil.copyfile(model.examples, (made / page).with_name(told["examples"]))
        write_text(made / page, page_template.render(told))


def _order_of(record: RobustnessRecord) -> tuple[str, float]:
    """What tables of one dataset are sorted by: the norm, then epsilon."""
    threat = record.threat_model
    return (threat.norm, threat.epsilon) if threat else ("", 0.0)


def _in_script(value: Any) -> Any:
    """JSON for a script element of data, which no text in it can end."""
    import markupsafe

    text = json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return markupsafe.Markup(text)  # nothing in it is markup any more


def _breakable(text: str) -> Any:
    """Text that may go on in the next line behind dots and underscores."""
    import markupsafe

    return markupsafe.Markup("<wbr>").join(  # joined, each part is escaped
        re.split(r"(?<=[._])", text)
    )


def _pages(models: Sequence[SiteModel]) -> list[str]:
    """A file for each model, by its name as far as file systems and addresses bear it."""
    pages: list[str] = []
    taken: set[str] = set()
    for model in models:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", model.record.name)[:80].strip("._") or "model"
        chosen = next(
            candidate
            for number in itertools.count(1)
            if (candidate := name if number == 1 else f"{name}-{number}").lower() not in taken
        )
        taken.add(chosen.lower())
        pages.append(f"models/{chosen}.html")
    return pages


def _tables(models: Sequence[SiteModel], pages: Sequence[str]) -> list[dict[str, Any]]:
    """Of each dataset and threat model, in the order of the models: the title, and rows of cells."""
    tables = []
    both = zip(models, pages, range(len(models)), strict=True)
    groups = itertools.groupby(
        both, key=lambda item: (item[0].record.dataset.name, ball_of(item[0].record))
    )
    for number, ((dataset, ball), group) in enumerate(groups):
        rows = []
        for rank, (model, page, place) in enumerate(group, 1):
            cells = {"rank": Cell(str(rank), rank), **cells_of(model.record, model.role, page)}
            rows.append({"cells": cells, "place": place})
        tables.append({"key": f"t{number}", "dataset": dataset, "ball": ball, "rows": rows})
    return tables


def _csv(tables: Sequence[Mapping[str, Any]]) -> str:
    keys = [key for key, *_ in COLUMNS]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["dataset", "threat model", *keys])
    for table in tables:
        for row in table["rows"]:
            texts = [_harmless(row["cells"][key].text) for key in keys]
            writer.writerow([_harmless(table["dataset"]), table["ball"], *texts])
    return out.getvalue()


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") else text


def _card(model: SiteModel) -> Any:
    """The model card as HTML, in which nothing of the record is markup."""
    import markupsafe
    from markdown_it import MarkdownIt

    text = model_card(model.record, handle=model.handle)
    if text.startswith("---"):
        text = text.partition("\n---\n")[2]
    text = re.sub(r"^!\[.*$", "", text, flags=re.MULTILINE)  # the picture, which is drawn here
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return markupsafe.Markup(html)  # made by a renderer that escapes

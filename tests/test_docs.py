import pathlib
import re

from robust_zoo.evaluation import checks
from robust_zoo.zoo import list_models, load_record

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


def test_every_check_is_explained():
    page = (DOCS / "explanation.md").read_text()
    explained = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    found = {
        check.name for entry in list_models(role="all") for check in load_record(entry.name).checks
    }
    ours = {*checks._ORDER, checks.certificates_hold(0, 1).name}
    assert found | ours == explained


def test_links_lead_somewhere():
    for page in [
        *DOCS.glob("*.md"),
        DOCS.parent / "README.md",
        DOCS.parent / "benchmark/README.md",
    ]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"

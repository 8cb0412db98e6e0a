"""The documents point at what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "backends/*/*.md", "stores/*/*.md", "cni/*.md")
    for path in ROOT.glob(pattern)
)


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_relative_link_resolves(document: Path) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", without_code((ROOT / document).read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / document).parent / path if path else ROOT / document
        assert linked.exists(), f"{document} links to {target}"
        assert not anchor or anchor in anchors(linked.read_text()), f"{document} links to {target}"


def test_every_document_under_docs_is_reached_from_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", (ROOT / "docs/index.md").read_text()))
    documents = {str(path.relative_to("docs")) for path in DOCUMENTS if path.parts[0] == "docs"}
    assert documents - {"index.md"} <= linked


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_make_target_named_in_the_documents_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]*`", (ROOT / document).read_text(), flags=re.DOTALL))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", code, flags=re.MULTILINE))
    assert named <= targets


def test_make_help_lists_every_target_but_the_internal_ones() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony
    described = set(re.findall(r"^([a-z]+):.*## ", makefile, flags=re.MULTILINE))
    assert set(phony[1].split()) - {"commands", "compile", "compiler", "machine"} == described


def test_every_plugin_directory_is_in_the_readme_table() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in [*ROOT.glob("backends/*"), *ROOT.glob("stores/*")]:
        assert re.search(rf"^\| `{path.name}` \|.*\| works \|$", readme, flags=re.MULTILINE), path.name


def test_every_module_of_the_core_has_its_line_in_the_architecture() -> None:
    text = (ROOT / "docs/explanation/architecture.md").read_text()
    core = ROOT / "flannel_core"
    modules = {path.stem for path in core.glob("[!_]*.py")} | {path.parent.name for path in core.glob("*/__init__.py")}
    assert modules - {name for name in modules if f"`{name}`" in text} == set()


def test_what_troubleshooting_has_the_status_say_is_what_the_code_says() -> None:
    patterns = ("flannel_core/**/*.py", "backends/*/flannel_*/*.py", "stores/*/flannel_*/*.py")
    texts = (path.read_text() for pattern in patterns for path in ROOT.glob(pattern))
    code = "\n".join(re.sub(r'"\s*\n\s*[fr]?"', "", text) for text in texts)  # one string over several lines is one
    rows = [line.split(" | ") for line in (ROOT / "docs/how-to/troubleshooting.md").read_text().splitlines()]
    spans = [span for row in rows if len(row) == 3 for span in re.findall(r"`([^`]+)`", row[1])]
    assert len(spans) > 15
    assert [part for span in spans for part in span.split("...") if part.strip() not in code] == []

"""Documents that say something checkable: imports, data, links, generated pages, README's Python."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import llmpatch
from clikit import fill, recipe_for, save
from tinymodels import make_tiny

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/llmpatch"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "data/README.md"]
LATE = {("artifact", "patched")}  # ARCHITECTURE.md names it


def order():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = text.partition("<!-- order:")[2].partition("<!-- /order -->")[0]
    return re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE)


def imports():
    """(file, importing module, imported module, late) for every import inside the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts in {("__init__",), ("__main__",)}:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                module = node.module or ""
                names = [f"llmpatch.{a.name}" for a in node.names] if module == "llmpatch" else [module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                pieces = name.split(".")
                if pieces[0] == "llmpatch" and len(pieces) > 1 and pieces[1] != "__version__":
                    yield path, parts[0], pieces[1], id(node) not in top


def test_the_map_lists_every_module_once():
    modules = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert sorted(order()) == sorted(modules - {"__init__", "__main__"})


def test_imports_go_upstream_only():
    place = {name: i for i, name in enumerate(order())}
    found = list(imports())
    assert len(found) > 100
    wrong = [
        f"{path.relative_to(ROOT)}: {source} imports {target}"
        for path, source, target, late in found
        if place.get(target, -1) > place.get(source, -1) and not (late and (source, target) in LATE)
    ]
    assert wrong == []


def test_every_relative_link_leads_somewhere():
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def test_every_decision_is_listed():
    pages = sorted(p.name for p in (ROOT / "docs/adr").glob("0*.md"))
    index = (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
    assert re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", index) == pages
    for name in pages:
        text = (ROOT / "docs/adr" / name).read_text(encoding="utf-8")
        assert f"[{name[:4]}]({name}) | {text.splitlines()[0].removeprefix(f'# {name[:4]} ')}" in index
        assert all(f"**{part}" in text for part in ("Decision.", "Why", "Instead.", "Cost."))


def test_generated_documents_are_current():
    command = [sys.executable, str(ROOT / "scripts/make_docs.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_every_dependency_has_a_reason():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    wanted = {re.split(r"[<>=\[]", line)[0] for line in [*project["dependencies"], *extras]} - {"llmpatch"}
    text = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    assert {name for name in wanted if f"`{name}`" not in text} == set()


def rows(name):
    return [
        json.loads(line)
        for path in sorted(ROOT.glob(f"data/prompts/{name}.jsonl"))
        for line in path.open(encoding="utf-8")
    ]


def test_no_cluster_is_on_both_sides_of_the_split():
    trained = {row["cluster"] for row in [*rows("*_train"), *rows("*_validation")]}
    tested = {row["cluster"] for row in rows("*_test")}
    assert len(trained) > 1000
    assert len(tested) > 500
    assert trained & tested == set()


def test_authored_prompts_are_as_far_from_the_tests_as_we_say():
    def words(row):
        return frozenset(re.findall(r"[a-z0-9']+", row["prompt"].lower()))

    authored, tests = (
        [words(r) for r in rows("authored")],
        [words(r) for r in rows("*_test") if r["source"] != "llmpatch"],
    )
    nearest = max(len(a & t) / len(a | t) for a in authored for t in tests)
    assert 0.3 < nearest < 0.45


def test_data_readme_names_every_file_and_source():
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    for path in ROOT.glob("data/prompts/*.jsonl"):
        family, _, side = path.stem.rpartition("_")
        whole = f"`{path.stem}`" in text
        assert whole or (f"`{family}_train`" in text and f"`_{side}`" in text), path.stem


def blocks():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_readme_python_runs(tmp_path, monkeypatch, capsys):
    """As printed, on a random model in the bundled one's place, in a folder laid out like the repository."""
    from llmpatch.bases import load_base

    folder = save(tmp_path / "model", make_tiny(max_position_embeddings=4096))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(fill(work, recipe_for(folder)))
    use, build = blocks()
    names = {}
    exec(compile(build, "README build", "exec"), names)
    assert names["patch"].path == Path("my-patch")
    assert len(names["model"].generate(["hi"], max_new_tokens=2)[0]) == 1
    shutil.copytree("my-patch", "patches/smollm2/refusal")
    monkeypatch.setattr(llmpatch, "load_base", lambda name: load_base(str(folder)) if name == "smollm2" else None)
    exec(compile(use, "README use", "exec"), {})
    assert "refusal" in capsys.readouterr().out


@pytest.mark.real
@pytest.mark.skipif(not (ROOT / "patches/smollm2/refusal").is_dir(), reason="the official patch is not built yet")
def test_readme_python_answers_with_the_official_patch(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(blocks()[0], "README use", "exec"), {})
    assert "bread" in capsys.readouterr().out.lower()

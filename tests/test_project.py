"""The project's own files: versions in one file, licenses, nothing of one machine."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import nbhelpers as nb
from nbhelpers.evaluation import load_results, over_baselines

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
TEXT = (".py", ".md", ".toml", ".yml", ".yaml", ".cff", ".bib", ".css", ".cfg", ".lock", "")
ELSEWHERE = {"_build", "build", "data", "dist", "out", "__pycache__"}


def own_files():
    """Every text file of the project, without what is built, fetched or cached."""
    for folder, names, files in os.walk(ROOT):
        names[:] = [n for n in names if n == ".ci" or (n[0] != "." and n not in ELSEWHERE)]
        for path in (Path(folder, name) for name in files):
            if path.suffix in TEXT and not path.is_symlink():
                yield path


def requirements(*extras):
    """The requirements of the project, or of some of its extras."""
    project = PYPROJECT["project"]
    if not extras:
        return [Requirement(line) for line in project["dependencies"]]
    optional = project["optional-dependencies"]
    return [Requirement(line) for extra in extras for line in optional[extra]]


def locked():
    """The versions in the lock by package; a package may have one for each platform."""
    versions = {}
    for line in LOCK.splitlines():
        if line and not line.startswith("#"):
            name, version = line.split(";")[0].strip().split("==")
            versions.setdefault(canonicalize_name(name), []).append(Version(version))
    return versions


@pytest.mark.parametrize("extra", [None, "book", "lab", "test", "dev", "lock"])
def test_lock_holds_every_requirement(extra):
    versions = locked()
    for requirement in requirements(*([extra] if extra else [])):
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{requirement.name} is not in requirements.lock; run `make lock`"
        assert all(requirement.specifier.contains(v) for v in found), requirement


def test_lock_names_no_index():
    assert "://" not in LOCK
    assert not re.search(r"^\s*-", LOCK, re.MULTILINE)


def test_the_tools_are_pinned():
    pinned = {r.name: str(r.specifier) for r in requirements("dev")}
    for name in ("ruff", "mypy"):
        assert re.fullmatch(r"==[\d.]+", pinned[name]), name


def test_torch_is_one_version_in_the_lock_and_any_that_was_tried_in_the_package():
    (torch,) = (r for r in requirements() if r.name == "torch")
    assert [torch.specifier.contains(v) for v in ("2.9.1", "2.10.0", "2.13.0")] == [0, 1, 1]
    assert len(locked()["torch"]) == 1  # the one that made what is recorded


# Notes how it was called; asked for an environment, makes one of copies of itself.
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $* in $IPYTHONDIR" >> "$NOTES"
case "$*" in "-m venv"*)
    for folder; do :; done
    mkdir -p "$folder/bin" "$folder/lib/python3.11/site-packages"
    for name in python jupyter-book ruff mypy uv; do cp "$0" "$folder/bin/$name"; done
esac
"""


def test_make_works_in_a_folder_whose_path_has_spaces(tmp_path):
    folder, python = tmp_path / "with  spaces", tmp_path / "base python"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    python.write_text(PROGRAM)
    python.chmod(0o755)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE)
    assert {"book", "test", "graders", "labs", "lint", "lock"} < {*targets}
    env = os.environ | {"NOTES": str(tmp_path / "notes")}
    for target in [*(t for t in targets if "clean" not in t), "clean", "distclean"]:
        command = ["make", target, f"PYTHON={python}"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (target, done.stderr)
    called = (tmp_path / "notes").read_text().splitlines()
    assert called[0] == "base python -m venv .venv in "
    (book,) = (line for line in called if line.startswith("jupyter-book"))
    assert book.endswith(f" in {folder}/book/_build/.ipython")
    assert not (folder / ".venv").exists()


def test_versions_stand_in_pyproject_alone():
    pattern = re.compile(r"[A-Za-z][\w.-]*(\[[\w,]+\])?\s*(==|>=|~=)\s*\d")
    files = ["Makefile", "README.md", "environment.yml", ".ci/run", ".pre-commit-config.yaml"]
    for name in files:
        found = pattern.search((ROOT / name).read_text(encoding="utf-8"))
        assert not found, f"{name} states a version: {found[0]}"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repo["repo"] for repo in hooks["repos"]} == {"local"}


def test_environment_installs_what_the_readme_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *packages, pip = environment["dependencies"]
    assert packages == ["python=3.12", "pip"]
    assert pip["pip"][-1] == "-e .[book,lab,test]"


def test_no_file_names_a_registry_or_a_folder_of_one_machine():
    host = re.compile(r"\b(index|registry|files|deb)\.[a-z]+\.(org|com|io)\b|pythonhosted")
    folder = re.compile(r"(^|[^.\w/-])/(home|root|work|opt|mnt)/\w", re.MULTILINE)
    for path in own_files():
        text = path.read_text(encoding="utf-8")
        if path != Path(__file__):
            assert not host.search(text), f"{path} names a registry: {host.search(text)[0]}"
        if "tests" not in path.parts:
            assert not folder.search(text), f"{path} names {folder.search(text)[0]}"


def test_licenses_are_there_and_named():
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    text = (ROOT / "LICENSE-text").read_text(encoding="utf-8")
    assert "creativecommons.org/licenses/by/4.0/" in text
    assert "creativecommons.org/licenses/by-sa/4.0/" in text
    assert set(PYPROJECT["project"]["license-files"]) == {"LICENSE", "LICENSE-text"}


def test_citation_and_changelog_know_the_version():
    version = PYPROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    assert citation["cff-version"] == "1.2.0"
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_drawer_for_everything():
    folders = (ROOT / "nbhelpers", ROOT / "book" / "nblabs")
    names = {path.stem for folder in folders for path in folder.rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "misc", "common"}


def test_links_of_the_front_pages_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert "://" in target or (ROOT / target).exists(), f"{name} links to {target}"


def test_the_readme_names_data_that_is_there():
    named = set(re.findall(r"\bdata/[\w/.-]*\w", (ROOT / "README.md").read_text("utf-8")))
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


PROMPTS = {
    "paper": "the paper's two steps",
    "sealed": "sealed against all three ways by which words leak",
}


def gains():
    """The rows of the README's table, as the record has them."""
    results = load_results(ROOT / "data" / "results")
    for method, prompt in PROMPTS.items():
        for baseline, row in over_baselines(results, method):
            cells = []
            for gain in (row["gain"], row["overall_gain"]):
                mean, low, high = (f"{100 * gain[end]:+.1f}" for end in ("mean", "low", "high"))
                cells.append(f"{mean} [{low}, {high}]")
            yield f"| {prompt} | {baseline} | {' | '.join(cells)} |"


def test_the_readme_states_the_gains_that_were_measured():
    """All of them: over each baseline, in both means. Another record fails here, with its rows."""
    text = (ROOT / "README.md").read_text("utf-8")
    stated = re.findall(rf"^\| (?:{'|'.join(PROMPTS.values())}) \|.*$", text, re.MULTILINE)
    assert stated == list(gains())


def test_the_readme_states_the_gains_by_kind_of_phrase():
    results = load_results(ROOT / "data" / "results")
    stated = re.findall(r"^\| (?:attribute|position|noun) \|.*$", (ROOT / "README.md").read_text(
        "utf-8"), re.MULTILINE)  # fmt: skip
    rows = []
    for row in results.rows("kinds", method="sealed"):
        mean, low, high = (f"{100 * row['gain'][end]:+.1f}" for end in ("mean", "low", "high"))
        rows.append(f"| {row['kind']} | {row['expressions']} | {mean} [{low}, {high}] |")
    assert stated == rows


def test_the_readme_says_on_what_it_was_measured():
    table = load_results(ROOT / "data" / "results").table("table-2")
    (said,) = re.findall(
        r"^\*\*The world\.\*\* .*$", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    assert f"{table['expressions']:,} expressions of {table['pictures']} pictures" in said
    assert table["split"] in said and table["dataset"] in said


def test_the_readme_states_what_a_nouns_token_holds():
    record = json.loads((ROOT / "data/stickers/results.json").read_text("utf-8"))["noun token"]
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    for share in (f"{100 * record['noun']:.0f}% is due to the noun",
                  f"{100 * record['color']:.0f}% to the color before it"):  # fmt: skip
        assert share in text, share


def test_the_readmes_first_screen():
    """What it is, a figure, the two commands, ten lines; numbers and details after these."""
    text = (ROOT / "README.md").read_text("utf-8")
    order = ["The code is the small tested package", "](book/images/", "make book ", "make test ",
             "import nbhelpers as nb", "## What holds"]  # fmt: skip
    offsets = [text.index(part) for part in order]
    assert offsets == sorted(offsets)
    commands = [line for line in text[: offsets[4]].splitlines() if line.startswith("make ")]
    assert len(commands) == 2


def test_the_readmes_ten_lines_run_as_they_stand(monkeypatch):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    statements = ast.parse(code[1]).body
    assert len(statements) == 11  # a `with` is one, with what it holds; the import is none of ten
    monkeypatch.chdir(ROOT)
    made = {}
    exec(compile(code[1], "README.md", "exec"), made)
    assert made["masks"].shape == (len(made["chunks"]), *made["image"].shape[:2])
    assert made["caption"].startswith("a photograph of a black horse")


def test_the_readme_calls_what_there_is():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(code[1])) if isinstance(node, ast.Call)]
    assert len(calls) == 11
    for call in calls:
        function = getattr(nb, call.func.attr)
        keywords = {keyword.arg: None for keyword in call.keywords}
        inspect.signature(function).bind(*[None] * len(call.args), **keywords)

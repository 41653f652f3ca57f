"""What the pages say of commands, files and names is so; `make docs` holds their links."""

import re
import shlex
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml

from cqr.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ALL = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
COMMANDS = typer.main.get_command(app).commands
USAGE = typer.BadParameter.__base__  # the one name of it that typer gives away
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
FOLDERS = "benchmarks|docs|pipeline|report|scenes|search|tests|trainer"
FILE = re.compile(rf"\b(?:{FOLDERS})/[\w./-]+\.\w+")
BENCHMARK = re.compile(r"\bbenchmarks/[\w/]+\.(?:py|sh|c|toml)\b")
NAME = re.compile(r"\bcqr(?:\.\w+)+")


def names(nav):
    """Every page of a part of the navigation."""
    for value in nav:
        if isinstance(value, str):
            yield value
        else:
            for below in value.values():
                yield from names([below] if isinstance(below, str) else below)


def test_every_page_is_in_the_navigation():
    listed = set(names(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert {page.relative_to(ROOT / "docs").as_posix() for page in PAGES} <= listed


def command_lines(text):
    """Lines of code blocks that call cqr, those that a backslash splits joined."""
    blocks = FENCED.findall(text) + re.findall(r"^ {4}.*$", FENCED.sub("", text), re.MULTILINE)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if line.strip().removeprefix("$ ").startswith("cqr "):
            yield line.strip().removeprefix("$ ")


def command_spans(text):
    """What calls cqr within a sentence; a value may be left out there."""
    text = re.sub(r"^ {4}.*$", "", FENCED.sub("", text), flags=re.MULTILINE)
    return [span for span in re.findall(r"`([^`]+)`", text) if re.match(r"cqr\s+[a-z]", span)]


def wrong(line, whole):
    """What is wrong with a command, as the shell would say it, or None."""
    name, *words = shlex.split(line, comments=True)[1:]
    if name not in COMMANDS:
        return f"no command {name}"
    command = COMMANDS[name]
    options = {option for p in command.params for option in p.opts + p.secondary_opts} | {"--help"}
    typed = {word.partition("=")[0] for word in words if word.startswith("--")}
    if not typed <= options:
        return f"no option {typed - options}"
    if whole:
        context = typer.Context(command)
        try:
            _, rest, _ = command.make_parser(context).parse_args(words)
        except USAGE as error:
            return error.message
        if rest:
            return f"too much: {rest}"
    return None


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_commands_and_options_exist(page):
    text = page.read_text(encoding="utf-8")
    found = [(line, wrong(line, True)) for line in command_lines(text)]
    found += [(span, wrong(span, False)) for span in command_spans(text)]
    assert [pair for pair in found if pair[1]] == []


@pytest.mark.parametrize(
    "line",
    [
        "cqr fetch --images photos",
        "cqr extract --pictures photos",
        "cqr extract --images photos --k",
        "cqr evaluate photos",
    ],
)
def test_a_wrong_command_is_found(line):
    (found,) = command_lines(f"Then:\n\n    {line}   # soon\n")
    assert wrong(found, True)


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_files_of_the_repository_exist(page):
    for file in FILE.findall(page.read_text(encoding="utf-8")):
        assert "NAME" in file or (ROOT / file).exists(), file


def test_benchmarks_that_any_text_names_exist():
    texts = [ROOT / "Makefile", ROOT / "CHANGELOG.md", ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder in FOLDERS.split("|"):
        inside = sorted((ROOT / folder).rglob("*.*"))
        texts += [path for path in inside if path.suffix in {".py", ".sh", ".toml", ".md"}]
    named = {(t, name) for t in texts for name in BENCHMARK.findall(t.read_text(encoding="utf-8"))}
    assert len(named) > 90
    assert [f"{text}: {name}" for text, name in named if not (ROOT / name).is_file()] == []


def test_every_benchmark_has_a_line_in_its_room():
    """And a room, and no line is of a script that is gone."""
    folder = ROOT / "benchmarks"
    room, listed = "", []
    for line in (folder / "README.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"## `(\w+)/`: ", line):
            room = found[1]
        elif found := re.match(r"- `([\w.]+)`: ", line):
            listed.append(f"{room}/{found[1]}")
    there = [path for path in folder.rglob("*.*") if path.suffix != ".pyc"]
    names = {path.relative_to(folder).as_posix() for path in there if path.is_file()}
    assert sorted(listed) == sorted(names - {"README.md"})


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_names_of_python_exist(page):
    for name in NAME.findall(page.read_text(encoding="utf-8")):
        words = name.split(".")
        try:
            import_module(name)
        except ModuleNotFoundError:
            module = import_module(".".join(words[:-1]))
            assert hasattr(module, words[-1]), name


@pytest.fixture
def hook(monkeypatch):
    """The hook of the site, with what it warns of in `said`."""
    pytest.importorskip("mkdocs", reason="the site needs pip install 'cqr[docs]'")
    spec = spec_from_file_location("links", ROOT / "docs/site/links.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.said = []
    monkeypatch.setattr(module, "log", SimpleNamespace(warning=module.said.append))
    return module


@pytest.mark.parametrize(
    ("page", "link", "turned"),
    [
        ("search.md", "[a](../README.md#peers)", "[a](readme.md#peers)"),
        ("datasets/css.md", "![a](../report.webp)", "![a](../report.webp)"),
        ("datasets/css.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("readme.md", "[a](docs/datasets/css.md)", "[a](datasets/css.md)"),
        ("readme.md", "[`LBF`](trainer/models/lbf.py)", "`LBF` (`trainer/models/lbf.py`)"),
        ("search.md", "[`cli.py`](../cli.py)", "`cli.py`"),
        ("search.md", "[a](https://example.org/b)", "[a](https://example.org/b)"),
    ],
)
def test_links_lead_to_pages_of_the_site(hook, page, link, turned):
    on = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert hook.on_page_markdown(f"See {link}.", on, None, None) == f"See {turned}."
    assert hook.said == []


def test_the_site_refuses_a_dead_link_and_what_lies_elsewhere(hook):
    on = SimpleNamespace(file=SimpleNamespace(src_uri="search.md"))
    hook.on_page_markdown("[a](../trainer/gone.py)", on, None, None)
    hook.on_post_page('<a href="https://example.org"></a><script src="a.js"></script>', on, None)
    hook.on_post_page('<script src="https://example.org/a.js"></script>', on, None)
    assert hook.said == [
        "search.md links to ../trainer/gone.py, which is not there",
        "search.md loads https://example.org/a.js",
    ]

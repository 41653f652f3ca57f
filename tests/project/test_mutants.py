"""The tool behind `make mutants`: which errors it makes, and how it says that tests miss them."""

import subprocess
import sys
from pathlib import Path

import pytest

from mutate import mutants

TOOL = Path(__file__).parents[2] / "benchmarks" / "campaigns"


def changes(source):
    return [mutant.name for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a == b", ["a != b"]),
        ("a is not b in c", ["a is b in c", "a is not b not in c"]),
        ("a + b * c", ["a - b * c", "a + b / c"]),
        ("a and b", ["a or b"]),
        ("-a", ["a"]),
        ("f(a, 1)", ["pass", "f(a, 2)"]),
        ("raise E('words', 1)", ["pass"]),
        ("a = True", ["a = False"]),
        ("a = 'b'", ["a = 'bX'"]),
        ("a = b''", ["a = b'X'"]),
        ("a.b = c", ["pass"]),
        ("a += 2", ["a -= 2", "pass", "a += 3"]),
        ("a = f'{b} {c[0]}'", ["a = f'{b} {c[1]}'"]),
        ("a = b if c else d", ["a = b if not c else d"]),
        ("a = b if c < d else e", ["a = b if c <= d else e", "a = b if c >= d else e"]),
        ("a: Literal['b'] = c", []),
        ("import a", []),
        ("'words'", []),
    ],
)
def test_a_line_becomes(line, becomes):
    assert changes(line) == [f"module: `{line}` → `{new}`" for new in becomes]


def test_what_is_within_functions_and_classes():
    source = """
class A:
    size: int = 1

    @cached(3)
    def of(self, a: int = 2) -> 'A':
        \"\"\"Words.\"\"\"
        b = a
        b = self
        for c in b:
            break
        return b
"""
    assert changes(source) == [
        "A: `size: int = 1` → `size: int = 2`",
        "A.of: `def of(self, a: int=2) -> 'A':` → `def of(self, a: int=3) -> 'A':`",
        "A.of: `b = self` → `pass`",  # the first has no value without it
        "A.of: `break` → `continue`",
        "A.of: `return b` → `return None`",
    ]


def test_a_long_line_is_shown_around_the_change_and_a_name_is_given_once():
    line = f"a = [{'1 + b, ' * 30}]"
    names = changes(line)
    assert len(set(names)) == len(names) == 60
    assert max(map(len, names)) < 210
    assert "(2)" in " ".join(names)


def test_every_mutant_differs_from_the_module_and_from_every_other():
    source = (TOOL / "mutate.py").read_text()
    made = [mutant.source for mutant in mutants(source)]
    assert len({*made, source}) == len(made) + 1 > 50
    assert [mutant.source for mutant in mutants(source)] == made
    for text in made:
        compile(text, "mutant", "exec")


def test_what_tests_miss_is_on_the_page_and_what_is_known_is_not_tried_again(tmp_path):
    tool = tmp_path / "benchmarks" / "campaigns"
    for folder in (tool, tmp_path / "docs", tmp_path / "tests"):
        folder.mkdir(parents=True)
    for name in ("mutants.py", "mutate.py"):
        (tool / name).write_text((TOOL / name).read_text())
    (tmp_path / "small.py").write_text("def small(a):\n    return a < 5 and -a != 0\n")
    test = tmp_path / "tests" / "test_small.py"
    test.write_text("from cqr.small import small\ndef test(): assert small(1) and not small(6)\n")
    plan = tool / "mutants.toml"
    plan.write_text('import = []\n[tests]\n"small.py" = ["tests/test_small.py"]\n')
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    def run():
        command = [sys.executable, "benchmarks/campaigns/mutants.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines(), (tmp_path / "docs" / "mutants.md").read_text()

    tried, page = run()
    survived = [line.split("survived ")[1] for line in tried if "survived" in line]
    names = [
        "small: `return a < 5 and -a != 0` → `return a <= 5 and -a != 0`",
        "small: `return a < 5 and -a != 0` → `return a < 6 and -a != 0`",
        "small: `return a < 5 and -a != 0` → `return a < 5 and a != 0`",
        "small: `return a < 5 and -a != 0` → `return a < 5 and -a != 1`",
    ]
    assert (len(tried), survived) == (8, names)
    assert "| `small.py` | 8 | 8 | 4 | 0 | 0 | 4 | 50.0 % | 50.0 % |" in page
    assert all(f"- {name}: **not found by a test**" in page for name in names)
    # a better test, and a reason for what no test can find
    test.write_text(test.read_text() + "def test_more(): assert not small(5) and not small(0)\n")
    reason = f"""[equivalent."small.py"]\n'{names[2]}' = "zero has no sign"\n"""
    plan.write_text(plan.read_text() + reason)
    tried, page = run()
    assert [line.split()[2] for line in tried] == ["killed", "killed", "survived", "killed"]
    assert "| `small.py` | 8 | 8 | 7 | 0 | 1 | 0 | 87.5 % | 100.0 % |" in page
    assert f"- {names[2]}: zero has no sign" in page
    assert run() == ([], page)

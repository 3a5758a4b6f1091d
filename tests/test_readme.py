"""What README.md shows is true: its Python runs, its commands exist, no setting is missing."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from einsumc.runtime import settings
from einsumc.runtime.manifest import read_requests

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"

if not README.is_file():
    pytest.skip("README.md is not here", allow_module_level=True)

TEXT = README.read_text(encoding="utf-8")


def blocks(language):
    """The contents of the README's code blocks in a language, below their line numbers."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [(TEXT.count("\n", 0, match.start(1)), match[1]) for match in found]


def python_program():
    """The README's Python as one file, every statement on the line where the README has it."""
    lines = [""] * (TEXT.count("\n") + 1)
    for above, block in blocks("python"):
        code = block.splitlines()
        lines[above : above + len(code)] = code
    return "\n".join(lines)


def commands():
    """The words of each command in the README's shell blocks, without comments."""
    lines = [line for _, block in blocks("sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


# --- Python ---------------------------------------------------------------------------------------


def test_there_is_something_to_test():
    assert len(blocks("python")) >= 6
    assert len(commands()) >= 6
    fences = re.findall(r"^```(.*)$", TEXT, re.MULTILINE)
    assert set(fences) <= {"", "python", "sh", "toml", "text"}, "blocks that no test looks at"


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A store that running the README's Python has filled, and what that printed."""
    store = tmp_path_factory.mktemp("readme") / "store"
    return store, run(python_program(), EINSUMC_CACHE_DIR=store)


def run(program, **environment):
    """What a program prints, in a process of its own."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("EINSUMC_")}
    done = subprocess.run(
        [sys.executable, "-P", "-"],
        input=program,
        env={**ours, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, f"README.md (lines as in the README):\n{done.stderr}"
    return done.stdout


def test_python_runs(first_run):
    store, printed = first_run
    assert list(store.rglob("*.kernel"))
    assert printed


def test_python_runs_again_without_a_compiler(first_run):
    store, _ = first_run
    no_compiler = "\nimport sys\nassert not {'numba', 'llvmlite'} & {*sys.modules}"
    run(python_program() + no_compiler, EINSUMC_CACHE_DIR=store, EINSUMC_COMPILE="never")


def test_plan_is_the_one_shown(first_run):
    """But for what machines differ in: times, kernels and their scratch, who found the tree."""
    _, printed = first_run
    ((_, shown),) = [block for block in blocks("text") if "factorization" in block[1]]

    def lasting(text):
        text = re.sub(r"\d[\d.]* (ns|µs|ms|s)\b", "TIME", text)
        text = re.sub(r"\d+ %( +\d+ )?", "SHARE ", text)
        text = re.sub(r"\w+ [0-9a-f]{8}, .*", "KERNEL", text)
        text = re.sub(r"factorization: .*", "factorization", text.partition("candidates")[0])
        text = re.sub(r"scratch of .*", "scratch", text)
        return [line.split() for line in text.strip().splitlines()]

    assert lasting(printed) == lasting(shown)


# --- commands -------------------------------------------------------------------------------------


def check_script(path):
    if not (PROJECT / "scripts").is_dir():
        pytest.skip("the scripts are not here")
    assert os.access(PROJECT / path, os.X_OK), f"{path} is no script"


def check_python(words):
    if not (PROJECT / words[0]).is_file():
        pytest.skip(f"{words[0]} is not here")
    # Scripts import what lies beside them, which the tests' safe path would keep them from.
    usual = {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}
    script = [sys.executable, PROJECT / words[0], "--help"]
    shown = subprocess.run(script, env=usual, capture_output=True, text=True, timeout=60)
    known = set(re.findall(r"--[\w-]+", shown.stdout))
    assert options(words[1:]) <= known, shown.stderr


def check_einsumc(words):
    """The command line parses; nothing is run."""
    from einsumc.runtime.cli import command

    for number, word in enumerate(words, start=1):
        assert word in command.commands, f"there is no einsumc {' '.join(words[:number])}"
        command = command.commands[word]
        if not hasattr(command, "commands"):
            break
    command.make_context(command.name, words[number:])


def check_export(words):
    """Each is a variable that einsumc reads, with a value that it may have."""
    rows = {variable.name: variable for variable in settings.VARIABLES}
    for word in words:
        name, value = word.split("=")
        rows[name].parse(value)


def options(words):
    return {word.split("=")[0] for word in words if word.startswith("--")}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_exists(words, monkeypatch):
    monkeypatch.chdir(PROJECT)
    while re.fullmatch(r"EINSUMC_\w+=.*", words[0]):
        check_export(words[:1])
        words = words[1:]
    match words:
        case [script, *_] if script.startswith("./scripts/"):
            check_script(script)
        case [".venv/bin/python" | "python", *rest]:
            check_python(rest)
        case ["einsumc", *rest]:
            check_einsumc(rest)
        case ["export", *rest]:
            check_export(rest)
        case ["pip", "install", "."]:
            pass
        case _:
            pytest.fail(f"no test knows {words[0]}")


# --- files, signatures, settings ------------------------------------------------------------------


def test_toml_is_what_precompile_reads(tmp_path):
    for line, block in blocks("toml"):
        file = tmp_path / f"{line}.toml"
        file.write_text(block, encoding="utf-8")
        assert read_requests(file)


def test_table_has_every_setting():
    rows = dict(re.findall(r"^\| `(EINSUMC_\w+)` \| (.*?) \|", TEXT, re.MULTILINE))
    assert list(rows) == [variable.name for variable in settings.VARIABLES]
    for name, choices in {
        "EINSUMC_COMPILE": settings.COMPILE_CHOICES,
        "EINSUMC_SHOW": settings.SHOW_CHOICES,
        "EINSUMC_TARGET": settings.TARGET_CHOICES,
    }.items():
        assert tuple(re.findall(r"`([^`]+)`", rows[name])) == choices
    assert {*re.findall(r"EINSUMC_[A-Z_]+[A-Z]", TEXT)} == {*rows}


def test_files_exist():
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|md|toml))`", TEXT))
    assert "examples/digits_norms.py" in named
    for name in sorted(named):
        folder = PROJECT / name.split("/")[0]
        if folder.exists():  # some are absent where the wheel is tested
            assert (PROJECT / name).is_file(), name

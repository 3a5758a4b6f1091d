"""The example of a package that ships its kernels: what is in its wheel runs without a compiler."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import einsumc
import numpy as np
import pytest
from einsumc.runtime.cli import command
from einsumc.runtime.settings import VARIABLES

PROJECT = Path(__file__).parents[1]
EXAMPLE = PROJECT / "examples" / "fastnorms"
DOCUMENT = PROJECT / "docs" / "ahead-of-time.md"

if not EXAMPLE.is_dir():
    pytest.skip("the example is not here", allow_module_level=True)

RUN = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np
from fastnorms import norms
from einsumc.runtime.kernels import counts
for n, i, j in [(1, 1, 1), (3, 4, 5), (64, 10, 784), (100, 33, 7)]:
    random = np.random.default_rng(0)
    b, a = random.random((n, i), "f4"), random.random((n, j), "f4")
    for _ in range(3):
        expected = np.linalg.norm(b, axis=1) * np.linalg.norm(a, axis=1)
        np.testing.assert_allclose(norms(b, a), expected, rtol=1e-5)
assert counts.compiled == 0 < counts.stored
assert not {"numba", "llvmlite", "opt_einsum"} & {*sys.modules}
"""


def run(*words: object, cwd: Path, **variables: str) -> str:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("EINSUMC_")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=plain | {"EINSUMC_CACHE_DIR": str(cwd / "nothing")} | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # scripts/check-example, which CI runs, shows the same with a real wheel
def test_what_is_built_has_the_kernels_and_runs_without_a_compiler(tmp_path):
    pytest.importorskip("setuptools")
    source, built, packages = (tmp_path / name for name in ("source", "built", "packages"))
    shutil.copytree(EXAMPLE, source)
    # The whole takes longer: scripts/check-example does that.
    manifest = '[[kernel]]\nequation = "ni,ni->n"\nsignatures = ["f4[n,i], f4[n,i]"]\n'
    (source / "kernels.toml").write_text(manifest)
    precompile = [sys.executable, "-m", "einsumc.runtime.cli", "precompile", "kernels.toml"]
    run(*precompile, "--output", "fastnorms/kernels", "--jobs", 1, cwd=source)
    setup = [sys.executable, "-c", "import setuptools; setuptools.setup()"]
    run(*setup, "--quiet", "build", "--build-lib", built, cwd=source)
    assert list(built.rglob("*.kernel"))

    # Nothing but NumPy, einsumc and what was built can be imported; both belong to us alone.
    shutil.rmtree(source)
    packages.mkdir()
    folder = Path(np.__file__).parent
    for package in (folder, folder.parent / "numpy.libs", Path(einsumc.__file__).parent):
        if package.exists():
            name = "einsumc" if (package / "compiler").exists() else package.name
            (packages / name).symlink_to(package)
    path = os.pathsep.join([str(packages), str(built)])
    never = {"PYTHONPATH": path, "EINSUMC_COMPILE": "never"}
    run(sys.executable, "-S", "-P", "-c", RUN, cwd=tmp_path, **never)


# --- what is documented exists --------------------------------------------------------------------


def shell_lines(text: str) -> list[list[str]]:
    """The words of the commands in lines of a shell, those of `run:` in a workflow too."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def workflow_commands() -> list[list[str]]:
    yaml = (EXAMPLE / ".github" / "workflows" / "wheel.yml").read_text()
    found = []
    for match in re.finditer(r"^( *)run: (?:\|\n((?:\1  .*\n)+)|(.*)\n)", yaml, re.MULTILINE):
        found += shell_lines(match[2] or match[3])
    return found


def document_commands() -> list[list[str]]:
    if not DOCUMENT.is_file():
        return []
    blocks = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return [words for block in blocks for words in shell_lines(block)]


def check(words: list[str]) -> None:
    names = {variable.name: variable for variable in VARIABLES}
    words = words[1:] if words[0] == "export" else words
    while words and (assignment := re.fullmatch(r"(EINSUMC_\w+)=(.*)", words[0])):
        names[assignment[1]].parse(assignment[2])
        words = words[1:]
    match words:
        case []:
            pass
        case ["einsumc", name, *rest]:
            made = command.commands[name]
            while hasattr(made, "commands"):
                name, *rest = rest
                made = made.commands[name]
            made.make_context(name, rest)
        case ["python", "-m", "pip", "install", *_] | ["python", "-m", "build", "--wheel"]:
            pass
        case ["python", script] if script.startswith("benchmarks/"):
            assert (PROJECT / script).is_file()
        case ["python", "-m", "fastnorms"]:
            assert (EXAMPLE / "fastnorms" / "__main__.py").is_file()
        case ["pytest", *rest]:
            known = {"--einsumc-no-compile"}
            assert {word for word in rest if word.startswith("--")} <= known
        case _:
            pytest.fail(f"no test knows {' '.join(words)}")


@pytest.mark.parametrize("words", workflow_commands(), ids=" ".join)
def test_commands_of_the_workflow(words):
    check(words)


@pytest.mark.parametrize("words", document_commands(), ids=" ".join)
def test_commands_of_the_document(words):
    check(words)


def test_workflow_is_yaml_of_two_jobs():
    text = (EXAMPLE / ".github" / "workflows" / "wheel.yml").read_text()
    assert len(workflow_commands()) >= 7
    yaml = pytest.importorskip("yaml")
    parsed = yaml.safe_load(text)
    assert set(parsed["jobs"]) == {"build", "test"}
    variables = {**parsed["env"], **parsed["jobs"]["test"]["env"]}
    assert set(variables) <= {variable.name for variable in VARIABLES}
    for job in parsed["jobs"].values():
        assert all("uses" in step or "run" in step for step in job["steps"])

"""EINSUMC_RECORD: what a run used, whole at any time, from any number of threads and processes."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from einsumc import compile_einsum, einsum, gradnorms
from einsumc.compiler.subscripts import parse
from einsumc.runtime import decorator, trouble
from einsumc.runtime import record as module
from einsumc.runtime.layouts import layout_of, parse_layouts, virtual_of
from einsumc.runtime.manifest import read_requests
from einsumc.runtime.record import HEAD, record
from einsumc.runtime.signatures import parse_signature
from einsumc.runtime.trouble import StoreWarning
from einsumc.runtime.uses import Use, to_text, uses_in


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "made" / "used.toml"
    monkeypatch.setenv("EINSUMC_RECORD", str(file))
    monkeypatch.setattr(trouble, "_warned", {})
    monkeypatch.setattr(module, "_records", {})
    monkeypatch.setattr(decorator, "_by_text", {})  # plans that are there already are not recorded
    decorator._from_text.cache_clear()
    return file


def entries(path: Path):
    """What is in a record, which must be one that `einsumc precompile` reads."""
    assert read_requests(path)
    return tomllib.loads(path.read_text())["kernel"]


def in_process(code: str, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        env={**os.environ, "EINSUMC_RECORD": str(path), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- what is recorded -----------------------------------------------------------------------------


def test_equation_signature_layouts_and_options(path):
    a, b = np.ones((6, 5), "f4"), np.ones((5, 4), "f4")
    einsum("ij,jk->ik", a, b)
    assert entries(path) == [{"equation": "ij,jk->ik", "signatures": ["f4[i,j], f4[j,k]"]}]
    assert path.read_text().startswith(HEAD)

    einsum("ij,jk->ik", a.astype("f8"), b)
    einsum("ij,jk->ik", a[:, ::2], b[:3])
    einsum("ij,jk->ik", np.asfortranarray(a), np.asfortranarray(b))  # usual
    assert entries(path) == [
        {
            "equation": "ij,jk->ik",
            "signatures": ["f4[i,j], f4[j,k]", "f8[i,j], f4[j,k]"],
            "layouts": ["C*, C"],
        }
    ]

    einsum("ij,jk->ik", a, b, optimize=[(0, 1)], memory_limit="1 MiB")
    limited = entries(path)[0]
    assert (limited["optimize"], limited["memory_limit"]) == ([[0, 1]], 1 << 20)


def test_axes_that_broadcast_and_names_of_several_letters(path):
    einsum("...ij,jk", np.ones((3, 1, 5, 6), "f4"), np.ones((1, 4), "f4"))
    einsum("row n, n -> row", np.ones((3, 2)), np.ones(2))
    first, second = entries(path)
    assert first["signatures"] == ["f4[d0,d1,i,j], f4[1,k]"]
    assert second["signatures"] == ["f8[row,n], f8[n]"]


def test_dtype_that_is_computed_in_stands_where_the_operands_come_to_another(path):
    einsum("i,i->", np.ones(3, "i2"), np.ones(3, "i2"), dtype="f8")
    assert entries(path)[0]["signatures"] == ["f8[i], f8[i]"]


def test_what_needs_no_kernels_is_not_recorded(path):
    einsum("ij->ji", np.ones((2, 3)))
    einsum("i,i->", np.ones(0), np.ones(0))
    einsum("i,i->", np.array([1, 2], object), np.ones(2))
    assert not path.exists()


def test_a_compiled_einsum_records_as_well(path):
    compile_einsum("ij,j->i")(np.ones((3, 4)), np.ones(4))
    assert entries(path)[0]["signatures"] == ["f8[i,j], f8[j]"]


MODULE = """
import numpy as np
from einsumc import compile_einsum

@compile_einsum
def norms(a, b, scale=1.0, axis=1):
    return np.sqrt(((a @ b) ** 2).sum(axis=axis)) * scale

@compile_einsum
def weighted(x, *, weights=None, mask=None, größe=1):
    return x * (mask if weights is None else weights) * größe

def made():
    @compile_einsum
    def inner(a):
        return (a * a).sum(axis=1)
    return inner
"""


@pytest.fixture
def bodies(module_of):
    """A module with compiled functions that can be imported by its name."""
    return module_of("recorded_bodies", MODULE)


def test_a_compiled_function_records_its_name_operands_and_arguments(path, bodies):
    a, b = np.ones((8, 30), "f4"), np.ones((30, 50), "f4")
    bodies.norms(a, b)
    assert entries(path) == [
        {"function": "recorded_bodies:norms", "signatures": ["f4[i,j], f4[j,k]"]}
    ]
    bodies.norms(a, b[:, ::2], axis=0, scale=0.5)
    bodies.norms(a.astype("f8"), b.astype("f8"))
    plain, named = entries(path)
    assert plain["signatures"] == ["f4[i,j], f4[j,k]", "f8[i,j], f8[j,k]"]
    assert named["arguments"] == {"axis": 0, "scale": 0.5}
    assert named["layouts"] == ["C, C*"]
    assert path.read_text() == HEAD + to_text(uses_in(path.read_text())) + "\n"
    (request, other) = read_requests(path)
    assert request.signatures == tuple(map(parse_signature, plain["signatures"]))
    assert dict(other.arguments) == {"axis": 0, "scale": 0.5}


def test_operands_by_name_and_names_that_are_not_ascii(path, bodies):
    x, y = np.ones((3, 4)), np.ones((3, 4))
    bodies.weighted(x, weights=y, größe=2)
    expected = [
        {
            "function": "recorded_bodies:weighted",
            "signatures": ["f8[i,j], f8[i,j]"],
            "arguments": {"größe": 2},
        }
    ]
    assert entries(path) == expected
    bodies.weighted(x, mask=y)
    assert entries(path)[0]["signatures"] == ["f8[i,j], mask=f8[i,j]"]
    assert len(read_requests(path)) == 2


def test_a_function_that_no_manifest_can_name_is_one_warning(path, bodies):
    with pytest.warns(StoreWarning, match=r"made.<locals>.inner is not found by that name"):
        bodies.made()(np.ones((3, 4)))
    assert not path.exists()


def test_gradient_norms_are_recorded_as_their_entries_are_written(path):
    x, g = np.ones((5, 7, 6), "f4"), np.ones((5, 7, 3), "f4")
    layer = gradnorms.Linear(outputs=g, inputs=x, bias=False)
    gradnorms.clipped_sums({"fc": layer}, 1.0, weights=np.ones(5, "f4"))
    (entry,) = entries(path)
    text = "Linear(outputs=f4[i,j,k], inputs=f4[i,j,l], bias=False)"
    assert entry == {"gradnorms": f"clipped_sums(fc={text}, weights=f4[i])"}


def test_texts_that_toml_has_to_escape():
    use = Use('"\\\x7f\n\t→', "f4", optimize='["random-greedy", 1000.5]', memory_limit=0)
    assert uses_in(to_text([use])) == [use]


def test_same_text_whatever_the_order():
    uses = [
        Use("b", "f4[i]", memory_limit=10),
        Use("b", "f4[i]"),
        Use("a", "f8[i]"),
        Use("a", "f4[i]"),
        Use("a", "f4[i]", "C+"),
        Use("a", "f4[i]", optimize="false"),
    ]
    texts = {to_text(random.Random(n).sample(uses * 2, 12)) for n in range(20)}
    assert len(texts) == 1
    assert to_text(uses_in(texts.pop())) == to_text(uses)


# --- layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["C", "F", "102", "201", "C+", "F+", "C*", "021*", "120+"])
def test_arrays_of_a_kind_are_of_that_kind(word):
    array = virtual_of((4, 5, 6), "f8", word)
    assert array.shape == (4, 5, 6)
    assert layout_of(array) == word
    assert parse_layouts(f" {word} ,C", 2) == (word, "C")


def test_extents_of_one_and_broadcast_axes():
    assert layout_of(np.ones((1, 5))) == layout_of(np.ones((5, 1))) == layout_of(np.ones(())) == "C"
    assert layout_of(np.broadcast_to(np.ones((4, 1)), (4, 3))) == "C*"
    assert layout_of(np.ones((3, 4))[::-1]) == "C+"
    assert layout_of(np.ones((3, 4))[:, ::-1]) == "C*"
    assert virtual_of((2, 3), "f4", "012") is None


# --- many writers ---------------------------------------------------------------------------------


def test_threads(path):
    uses = [Use(f"equation {n}", "f4[i]") for n in range(40)]
    before = threading.active_count()

    def work(mine):
        for use in mine:
            record(str(path), lambda use=use: use)

    threads = [threading.Thread(target=work, args=(uses[n::4] * 2,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threading.active_count() == before
    assert path.read_text() == HEAD + to_text(uses) + "\n"


WRITER = """
import sys
from einsumc.runtime.uses import Use
from einsumc.runtime.record import record
which, count = int(sys.argv[1]), int(sys.argv[2])
for n in range(count):
    record(sys.argv[3], lambda: Use(f"equation {n * (which % 2 + 1)}", f"f4[{which}]"))
"""


def start_writer(which: int, count: int, path: Path) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-P", "-c", WRITER, str(which), str(count), str(path)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def test_processes(tmp_path):
    path = tmp_path / "used.toml"
    writers = [start_writer(which, 30, path) for which in range(4)]
    for writer in writers:
        assert writer.wait() == 0, writer.stderr.read()
    uses = [Use(f"equation {n * (w % 2 + 1)}", f"f4[{w}]") for w in range(4) for n in range(30)]
    assert path.read_text() == HEAD + to_text(uses) + "\n"
    assert [file.name for file in tmp_path.iterdir()] == ["used.toml"]


def test_killed_writers_leave_a_whole_file(tmp_path):
    path = tmp_path / "used.toml"
    for round in range(6):
        writers = [start_writer(which, 10_000, path) for which in range(2)]
        end = time.monotonic() + 30
        size = path.stat().st_size if path.exists() else 0
        while time.monotonic() < end and (not path.exists() or path.stat().st_size <= size):
            time.sleep(0.01)
        time.sleep(0.02 * round)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        text = path.read_text()
        assert text == HEAD + to_text(uses_in(text)) + "\n"
    assert len(uses_in(text)) > 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_children_add_to_it(path):
    done = in_process(
        """
        import os, numpy as np
        from einsumc import einsum
        einsum("i,i->", np.ones(3), np.ones(3))
        child = os.fork()
        if not child:
            einsum("i,j->ij", np.ones(3), np.ones(3))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        einsum("ij->i", np.ones((3, 3)))
        """,
        path,
    )
    assert done.returncode == 0, done.stderr
    assert [entry["equation"] for entry in entries(path)] == ["i,i->", "i,j->ij", "ij->i"]


# --- trouble --------------------------------------------------------------------------------------


def works() -> None:
    assert einsum("i,i->", np.ones(3), np.ones(3)) == 3


def test_a_file_of_somebody_else_is_left_alone(path):
    path.parent.mkdir()
    path.write_text("# mine\n[[kernel]]\n")
    with pytest.warns(RuntimeWarning, match="does not begin as a record does"):
        works()
    assert path.read_text() == "# mine\n[[kernel]]\n"


@pytest.mark.parametrize("text", [HEAD + "[[kernel", HEAD + "[[kernel]]\nequation = 3\n"])
def test_a_damaged_record_is_one_warning(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        works()
    assert path.read_text() == text


def test_a_directory_in_the_way(path):
    path.mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match=f"EINSUMC_RECORD={path} cannot be written"):
        works()


def test_no_warning_stops_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    done = in_process(
        """
        import warnings
        warnings.simplefilter("error")
        import numpy as np
        from einsumc import einsum
        assert einsum("i,i->", np.ones(3), np.ones(3)) == 3
        """,
        tmp_path / "file" / "used.toml",
    )
    assert done.returncode == 0, done.stderr


def test_a_directory_that_somebody_holds(path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    path.parent.mkdir()
    held = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        works()
    os.close(held)
    einsum("j,j->", np.ones(3, "f4"), np.ones(3, "f4"))  # with this, what waited is written as well
    assert [entry["equation"] for entry in entries(path)] == ["i,i->", "j,j->"]


def test_a_record_that_goes_away_is_written_again(path):
    works()
    path.unlink()
    einsum("j,j->", np.ones(3, "f4"), np.ones(3, "f4"))
    assert [entry["equation"] for entry in entries(path)] == ["i,i->", "j,j->"]


def test_signatures_fit_their_equations(path):
    for equation, shapes in {
        "ab cd, cd -> ab": [(2, 3), (3,)],
        "a...b,b->...": [(2, 3, 4, 5), (5,)],
        "ii->i": [(3, 3)],
        "d0 k ..., d0 k -> ...": [(3, 2, 4), (3, 2)],
    }.items():
        einsum(equation, *map(np.ones, shapes), order="C")
    for entry in entries(path):
        for signature in entry["signatures"]:
            parse_signature(signature, parse(entry["equation"]))

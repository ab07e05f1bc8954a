from __future__ import annotations

import importlib
import io
import pickle
import sys
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from bnstudy.validation import (
    ConfigError,
    Spec,
    SpecUnpickler,
    gigabytes,
    import_object,
    machine_bytes,
    printable,
)


@dataclass(frozen=True)
class Example(Spec):
    number: int = 1
    share: float = 0.5
    text: str = ""
    choice: Literal["a", "b"] = "a"
    anything: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A folder with a module of the user's, `mine`, that imports another beside it."""
    (tmp_path / "mine.py").write_text("import beside\n\nclass Norm(str):\n    pass\n")
    (tmp_path / "beside.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield
    for name in ("mine", "beside"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("own_module")
def test_a_module_in_the_working_directory_is_imported_with_those_beside_it():
    before = list(sys.path)
    assert import_object("mine.Norm", "norm._target_=mine.Norm").__module__ == "mine"
    assert sys.path == before


@pytest.mark.usefixtures("own_module")
def test_an_installed_package_imports_nothing_from_the_working_directory(tmp_path, monkeypatch):
    """torch and torchvision try to import gmpy2, tabulate and accimage, which may be missing."""
    paths = []
    monkeypatch.setattr(importlib, "import_module", lambda _: paths.append(list(sys.path)) or sys)
    for dotted in ("bnstudy.norms.none.argv", "torchvision.models.argv", "mine.argv"):
        import_object(dotted, "")
    assert [str(tmp_path) in path for path in paths] == [False, False, True]


@pytest.mark.usefixtures("own_module")
def test_another_process_reads_classes_from_the_working_directory():
    pickled = pickle.dumps(import_object("mine.Norm", "")("a"))
    for name in ("mine", "beside"):
        del sys.modules[name]
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(pickled)
    assert SpecUnpickler(io.BytesIO(pickled)).load() == "a"


def test_what_a_script_itself_defines_is_refused_as_other_processes_cannot_import_it(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Net", str, raising=False)
    with pytest.raises(ConfigError, match=r"model\.target=__main__\.Net is not allowed: .* write mine\.Net\."):
        import_object("__main__.Net", "model.target=__main__.Net")


@pytest.mark.usefixtures("own_module")
def test_a_module_that_is_nowhere_is_named_with_the_folder(tmp_path):
    with pytest.raises(ConfigError, match=f"k=nowhere.X cannot be imported: .*; looked for in {tmp_path} and the inst"):
        import_object("nowhere.X", "k=nowhere.X")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"number": [0, 1]}, r"number=\[0,1\] is not allowed: .* whole number. To sweep values, add -m and list them"),
        ({"share": [0.1]}, r"share=\[0.1\] is not allowed: it must be a finite number. To sweep values"),
        ({"choice": ["a", "b"]}, r"choice=\[a,b\] is not allowed: it must be one of a, b. To sweep values, add -m"),
        ({"number": 2**63}, "number=9223372036854775808 is not allowed: it must be below 2"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Example(**fields)


def test_a_text_may_have_several_lines():
    assert Example(text="a\nb").text == "a\nb"


def test_control_characters_are_shown_as_escapes():
    assert printable("a\x1b]0;b\x07\x9bü\n", keep="") == r"a\x1b]0;b\x07\x9bü\n"


def test_each_control_character_and_no_other_is_escaped():
    text = "".join(map(chr, (*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFFF0, 0x10010))))
    shown = ""
    for character in text:
        is_control = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        shown += ascii(character)[1:-1] if is_control and character != "\n" else character
    assert printable(text) == shown


def test_sizes_are_in_gigabytes():
    assert [gigabytes(n) for n in (24_700_000_000, 4 * 10**15, 10**6)] == ["25 GB", "4,000,000 GB", "0.001 GB"]
    assert 10**8 < machine_bytes() < 10**14

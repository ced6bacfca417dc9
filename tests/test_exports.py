import subprocess
import sys

import pytest

import llmpatch


def test_every_exported_name_is_there_and_no_other_is_advertised():
    assert sorted(llmpatch.__all__) == llmpatch.__all__
    assert set(llmpatch.__all__) == {*llmpatch._HOMES, "__version__"}
    for name in llmpatch.__all__:
        assert getattr(llmpatch, name) is not None


def test_the_names_type_checkers_see_are_the_names_that_load():
    source = open(llmpatch.__file__, encoding="utf-8").read()  # noqa: SIM115
    checked = source.partition("if TYPE_CHECKING:\n")[2].partition("\n# ")[0]
    pairs = {
        (name.strip(), line.split()[1])
        for line in checked.splitlines()
        if line.startswith("    from llmpatch.")
        for name in line.partition(" import ")[2].split(",")
    }
    assert pairs == {(name, f"llmpatch.{home}") for name, home in llmpatch._HOMES.items()}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        llmpatch.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, llmpatch; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'llmpatch'" in loaded
    for name in ("torch", "transformers", "numpy", "pydantic", "click"):
        assert f"'{name}'" not in loaded

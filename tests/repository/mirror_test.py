"""Every module of the package has a test of its own, where one looks for it."""

import pytest

from tests.paths import ROOT

MODULES = sorted(
    path.relative_to(ROOT / "tf_pseudofeat")
    for path in ROOT.glob("tf_pseudofeat/*/*.py")
    if path.name != "__init__.py"
)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_its_test(module):
    name = f"{module.stem}_test.py"
    places = [ROOT / "tests" / module.parent / name, ROOT / "tests/integration" / name]
    (test,) = [path for path in places if path.exists()]
    assert module.name in test.read_text("utf-8").partition('"""\n')[0]

"""mmdet and mmyolo are looked at before they are imported, and nothing imports them unasked."""

import importlib
import importlib.metadata
import subprocess
import sys

import pytest

VERSIONS = {"mmdet": "mmdet 3.0, 3.1, 3.2, 3.3 or onedl-mmdetection 3.5", "mmyolo": "mmyolo 0.5, 0.6"}


def fresh(monkeypatch, name, installed):
    """Import an integration anew where the distributions in ``installed`` are there, and only they of both
    packages'.
    """
    version = importlib.metadata.version

    def found(distribution):
        if distribution in installed:
            return installed[distribution]
        if distribution in ("mmdet", "mmyolo", "onedl-mmdetection"):
            raise importlib.metadata.PackageNotFoundError(distribution)
        return version(distribution)

    monkeypatch.setattr(importlib.metadata, "version", found)
    for module in list(sys.modules):
        if module.split(".")[0] == name or module == f"simota_triton.integrations.{name}":
            monkeypatch.delitem(sys.modules, module)
    if not installed:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    return importlib.import_module(f"simota_triton.integrations.{name}")


@pytest.mark.parametrize(
    ("name", "version"), [("mmdet", "2.28.2"), ("mmdet", "3.4.0"), ("mmdet", "30.0"), ("mmyolo", "0.4.0")]
)
def test_another_version_is_refused_with_those_that_work(monkeypatch, name, version):
    with pytest.raises(
        ImportError, match=f"{name} {version} is installed; works with {VERSIONS[name]}: pip install {name}=="
    ):
        fresh(monkeypatch, name, {name: version})


@pytest.mark.parametrize("name", ["mmdet", "mmyolo"])
def test_a_missing_package_is_named_with_the_versions_that_work(monkeypatch, name):
    with pytest.raises(
        ImportError, match=f"{name}: not installed; works with {VERSIONS[name]}: pip install {name}=="
    ):
        fresh(monkeypatch, name, {})


def test_importing_simota_triton_imports_no_integration():
    code = (
        "import sys, simota_triton; print([name for name in sys.modules if 'integrations' in name or "
        "name[:5] in ('mmdet', 'mmyol')])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )

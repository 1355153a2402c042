"""The wheel holds the whole program, and gives the same command."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dtr

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, PROJECT)
    [made] = directory.glob("dtr-*.whl")
    return made


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=120)


def test_the_wheel_holds_all_files_of_the_package(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("dtr/")}
    source = PROJECT / "src"
    files = {
        str(file.relative_to(source))
        for file in (source / "dtr").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert "dtr/py.typed" in files
    assert packed == files


def test_the_wheel_names_what_it_needs(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith("METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    wanted = [
        line
        for line in (PROJECT / "requirements" / "core.in").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    every = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    named = [line for line in every if "extra ==" not in line]
    assert sorted(map(str, map(Requirement, named))) == sorted(map(str, map(Requirement, wanted)))
    assert "License-Expression: Apache-2.0" in lines


def test_installed_from_the_wheel_it_is_the_same_command(wheel: Path, tmp_path: Path):
    pip("install", "--no-deps", "--target", tmp_path / "site", wheel)
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, tmp_path / "site" / "bin" / "dtr", "--version"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert dtr.__version__ in done.stdout
    where = subprocess.run(
        [sys.executable, "-c", "import dtr; print(dtr.__file__)"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path))
    shown = subprocess.run(
        [sys.executable, tmp_path / "site" / "bin" / "dtr", "config", "show"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "registry.manifest_limit" in shown.stdout

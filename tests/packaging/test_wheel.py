"""What a user gets who installs the wheel: the same path, outside the checkout, and nothing else in site-packages."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def checked(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the sdist and not from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    checked(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", out, ROOT, cwd=out)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    (source,) = (path for path in out.iterdir() if path.is_dir())
    checked(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_room_once(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")]
    assert {name.split("/")[0] for name in names} == {"timecourse"}
    assert len(names) == len(set(names))
    for needed in (
        "timecourse/cli/__init__.py",
        "timecourse/extract/families/olmo.py",
        "timecourse/extract/default_facts/company_ceo.json",
        "timecourse/dbt_project/dbt_project.yml",
        "timecourse/models/marts/fct_role_memberships.sql",
        "timecourse/expectations/gate.py",
        "timecourse/reports/site.py",
    ):
        assert needed in names, needed
    tracked = checked(
        "git", "ls-files", "models", "dbt_project", "reports", "extract", "expectations", cwd=ROOT
    ).split()
    assert {f"timecourse/{name}" for name in tracked} <= set(names)


@pytest.mark.slow
def test_the_demo_runs_in_an_empty_environment(wheel, tmp_path):
    checked(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    site_packages = Path(checked(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip())
    checked(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    record = checked(python, "-m", "pip", "show", "-f", "timecourse", cwd=tmp_path).split("Files:")[1]
    tops = {line.strip().split("/")[0] for line in record.splitlines() if line.strip() and "bin/" not in line}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"timecourse"}
    before = sorted(site_packages.rglob("*.py"))
    said = checked(tmp_path / "venv/bin/timecourse", "demo", "--small", cwd=tmp_path)
    assert (tmp_path / "demo/lake/current/site/index.html").is_file() and "facts known" in said
    assert sorted(site_packages.rglob("*.py")) == before
    assert not list((site_packages / "timecourse").rglob("target")) and not list(site_packages.rglob("*.log"))

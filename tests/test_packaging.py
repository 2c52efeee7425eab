"""Both wheels: what they hold, that their declared dependencies suffice, that they refuse each other; and the pins."""

import importlib.metadata
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = {"keytrail": ("cryptocore", "streams", "alerts", "reports"), "keytrail-core": ("cryptocore",)}
WHERE = {"keytrail": ROOT, "keytrail-core": ROOT / "cryptocore"}

IMPORT_ALL = """
import importlib, pkgutil, sys
services_bring = {"cryptocore.contrib.celery", "cryptocore.contrib.flask"} if "streams" in sys.argv else set()
for name in sys.argv[1:]:
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
        if module.name not in services_bring:
            importlib.import_module(module.name)
"""


def project(distribution: str) -> dict[str, object]:
    loaded: dict[str, object] = tomllib.loads((WHERE[distribution] / "pyproject.toml").read_text())["project"]
    return loaded


def build(distribution: str, out: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(WHERE[distribution]),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build(name, tmp_path_factory.mktemp(name)) for name in PACKAGES}


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds what it is given, and no pip."""

    folder: Path

    @property
    def site(self) -> Path:
        return Path(sysconfig.get_path("purelib", "venv", {"base": str(self.folder), "platbase": str(self.folder)}))

    def install(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.site)

    def run(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        python = self.folder / "bin" / "python"
        command = [str(python), "-I", "-c", code, *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)


def clean(folder: Path, wheel: Path, *extras: str) -> Environment:
    """The wheel, and of the test environment only what its metadata declares, linked file by file."""
    venv.create(folder, with_pip=False, symlinks=True)
    environment = Environment(folder)
    environment.install(wheel)
    for distribution in closure(wheel, extras):
        for file in distribution.files or ():
            if not file.parts[0].startswith("..") and "__pycache__" not in file.parts:
                link = environment.site / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(distribution.locate_file(file))).resolve())
    return environment


def closure(wheel: Path, extras: tuple[str, ...]) -> Iterator[importlib.metadata.Distribution]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = importlib.metadata.PathDistribution(zipfile.Path(wheel, name.removesuffix("METADATA")))
        waiting = [(metadata.requires or [], extras)]
        seen: set[tuple[str, str]] = set()
        while waiting:
            requires, wanted = waiting.pop()
            for requirement in map(Requirement, requires):
                if not applies(requirement, wanted):
                    continue
                for extra in ("", *requirement.extras):
                    key = (canonicalize_name(requirement.name), extra)
                    if key in seen or key[0] in PACKAGES:
                        continue
                    found = importlib.metadata.distribution(requirement.name)
                    if not any(name == key[0] for name, _ in seen):
                        yield found
                    seen.add(key)
                    waiting.append((found.requires or [], (extra,) if extra else ()))


def applies(requirement: Requirement, extras: tuple[str, ...]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def sources(distribution: str) -> set[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PACKAGES[distribution]],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git work tree: nothing to compare the wheel with")
    names = {name for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    return names - {"cryptocore/pyproject.toml"}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wheel_holds_its_packages_whole_and_nothing_else(name: str, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        held = {entry for entry in archive.namelist() if ".dist-info/" not in entry} - {"cryptocore/LICENSE"}

    assert held == sources(name)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wheel_brings_its_licence(name: str, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        assert [entry for entry in archive.namelist() if entry.endswith("LICENSE")]


def test_both_distributions_carry_one_version_and_agree_on_what_they_share() -> None:
    whole, core = project("keytrail"), project("keytrail-core")

    assert whole["version"] == core["version"]
    assert whole["requires-python"] == core["requires-python"]
    shared, own = whole["dependencies"], core["dependencies"]
    assert isinstance(shared, list)
    assert isinstance(own, list)
    assert set(own) <= set(shared)


def test_keytrail_core_imports_with_the_dependencies_it_declares(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = clean(tmp_path / "core", wheels["keytrail-core"])

    run = environment.run("import cryptocore; print(cryptocore.__file__)")

    assert run.returncode == 0, run.stderr
    assert str(tmp_path) in run.stdout


def test_keytrail_core_imports_every_module_with_its_extras(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = clean(tmp_path / "core", wheels["keytrail-core"], "azure", "kafka", "postgres", "celery", "flask")

    run = environment.run(IMPORT_ALL, "cryptocore")

    assert run.returncode == 0, run.stderr


def test_keytrail_imports_every_module_with_its_extras(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = clean(tmp_path / "all", wheels["keytrail"], "demo", "azure", "monitor", "feeds", "postgres")

    run = environment.run(IMPORT_ALL, *PACKAGES["keytrail"])

    assert run.returncode == 0, run.stderr


def test_the_demo_extra_runs_the_command_without_faust_kafka_and_elasticsearch(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    environment = clean(tmp_path / "demo", wheels["keytrail"], "demo")

    run = environment.run(
        "import importlib.util, sys\n"
        "assert not [n for n in ('faust', 'aiokafka', 'elasticsearch') if importlib.util.find_spec(n)]\n"
        "import streams.demo.run\n"
        "from streams.cli import app\n"
        "app(['demo', '--help'])"
    )

    assert run.returncode == 0, run.stderr
    assert "--out" in run.stdout


@pytest.mark.parametrize(("first", "second"), [("keytrail", "keytrail-core"), ("keytrail-core", "keytrail")])
def test_each_refuses_beside_the_other(first: str, second: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = clean(tmp_path / "both", wheels[first], "azure")
    environment.install(wheels[second])

    run = environment.run("import cryptocore")

    assert run.returncode != 0
    assert "keytrail and keytrail-core" in run.stderr.splitlines()[-1]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pairs}


@pytest.mark.parametrize(
    ("name", "extras"),
    [("demo", ["demo"]), ("monitor", ["monitor", "azure"]), ("test", ["all"]), ("bench", ["all"])],
)
def test_the_pins_satisfy_the_ranges(name: str, extras: list[str]) -> None:
    pinned = pins(name)

    for requirement in ranges(extras):
        assert canonicalize_name(requirement.name) in pinned, f"{requirement} is not pinned: make pins"
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}: make pins"


def ranges(extras: list[str]) -> list[Requirement]:
    declared = project("keytrail")
    lines, optional = declared["dependencies"], declared["optional-dependencies"]
    assert isinstance(lines, list)
    assert isinstance(optional, dict)
    found = [Requirement(line) for line in lines]
    for extra in extras:
        for requirement in map(Requirement, optional[extra]):
            found += ranges(sorted(requirement.extras)) if requirement.name == "keytrail" else [requirement]
    return found


def test_one_package_has_one_version_in_every_set() -> None:
    versions: dict[str, set[str]] = {}
    for name in ("demo", "monitor", "test", "bench"):
        for package, version in pins(name).items():
            versions.setdefault(package, set()).add(version)

    assert {package: found for package, found in versions.items() if len(found) > 1} == {}

"""The manifests and the compose file name settings, commands, ports and paths that exist, and run nothing as root."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from typer.main import get_command

from cryptocore.settings import CoreSettings
from streams.cli import app
from streams.feeds.settings import FeedSettings
from streams.settings import Settings

ROOT = Path(__file__).parent.parent
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
COMPOSE = ROOT / "docker-compose.yml"
PREFIXES = (("KEYTRAIL_CORE_", CoreSettings), ("KEYTRAIL_FEED_", FeedSettings), ("KEYTRAIL_", Settings))
WEB = {"/healthz", "/readyz"}


def documents() -> list[dict[str, Any]]:
    return [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text()) if each]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for each in documents():
        spec = each.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None:
            yield each["metadata"]["name"], template["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{name}/{container['name']}", container


def known(variable: str) -> bool:
    prefix, settings = next(pair for pair in PREFIXES if variable.startswith(pair[0]))
    return variable.removeprefix(prefix).lower() in settings.model_fields


def named_variables() -> set[str]:
    names = set()
    for each in documents():
        if each["kind"] == "ConfigMap":
            names |= {name for name in each["data"] if name.startswith("KEYTRAIL_")}
        for secret in each.get("spec", {}).get("secretObjects", ()):
            names |= {item["key"] for item in secret["data"]}
    for _, container in containers():
        names |= {variable["name"] for variable in container.get("env", ())}
    for service in yaml.safe_load(COMPOSE.read_text())["services"].values():
        names |= {name for name in service.get("environment", {}) if name.startswith("KEYTRAIL_")}
    return names


def test_every_variable_is_a_setting() -> None:
    names = named_variables()

    assert len(names) > 20
    assert [name for name in sorted(names) if not known(name)] == []


def test_every_command_exists() -> None:
    command = get_command(app)
    for name, container in containers():
        args = container.get("args", [])
        if container["image"].startswith("REGISTRY/keytrail") and args and "command" not in container:
            found: Any = command
            for word in (word for word in args if not word.startswith("-")):
                found = found.commands[word]
                if not hasattr(found, "commands"):
                    break
            options = {option for parameter in found.params for option in parameter.opts}
            assert {word for word in args if word.startswith("-")} <= options, name


def test_nothing_runs_as_root_or_writes_where_it_should_not() -> None:
    for _, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for name, container in containers():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"]["memory"], name


def test_probes_ask_where_a_worker_answers_and_stopping_has_time() -> None:
    worker = dict(pods())["keytrail-worker"]
    (container,) = worker["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]

    assert {probe["path"] for probe in probes} <= WEB
    assert {ports[probe["port"]] for probe in probes} == {Settings().web_port}
    assert worker["terminationGracePeriodSeconds"] > Settings().stop_s


def test_everything_that_is_mounted_or_referred_to_is_there() -> None:
    made = {(each["kind"], each["metadata"]["name"]) for each in documents()}
    for name, pod in pods():
        for volume in pod.get("volumes", ()):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in made, name
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in made, name
    for name, pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", ())} | {"spool"}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name


@pytest.mark.parametrize("path", [*MANIFESTS, COMPOSE], ids=lambda path: path.name)
def test_no_file_holds_a_password(path: Path) -> None:
    text = path.read_text().lower()
    for word in ("password:", "secret:", "api_key:"):
        for line in text.splitlines():
            value = line.partition(word)[2].strip()
            assert value in ("", '"true"') or value.startswith(("${", "{")), line

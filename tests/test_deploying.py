"""What is shipped for operators is read by the programs that it is for, and fits the server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser
from paste.deploy import appconfig
from paste.deploy.loadwsgi import SERVER, loadcontext

from authserver.ini import load
from authserver.web.serving import Section

CHECKOUT = Path(__file__).parents[1]
DEPLOY = CHECKOUT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
# The kinds that Kubernetes itself does not know.
CUSTOM = {"Kustomization": "kustomize.config.k8s.io", "ServiceMonitor": "monitoring.coreos.com"}
VARIABLES = ("ISSUER", "DATABASE_URL", "RESOURCES", "SECRET_KEYS", "REGISTRATION_TOKENS")


@pytest.fixture(scope="module")
def image_ini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """production.ini as it is in the image, by the very command of the container file."""
    (command,) = re.findall(r"RUN (sed .*) > /srv", (DEPLOY / "Containerfile").read_text())
    path = tmp_path_factory.mktemp("image") / "production.ini"
    made = subprocess.run(command.split(), cwd=CHECKOUT, capture_output=True, text=True, check=True)
    path.write_text(made.stdout)
    return path


def instructions() -> list[Mapping[str, Any]]:
    parser = DockerfileParser(fileobj=BytesIO((DEPLOY / "Containerfile").read_bytes()))
    return [item for item in parser.structure if item["instruction"] != "COMMENT"]


def manifests() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def container(kind: str) -> Mapping[str, Any]:
    """The one container of the manifest of this kind, with the pod around it."""
    (found,) = (document for _, document in manifests() if document["kind"] == kind)
    pod: Mapping[str, Any] = found["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    return {**only, "pod": pod}


# ---- the image --------------------------------------------------------------------------------------


def test_the_image_runs_as_nobody_with_a_health_check() -> None:
    last = {item["instruction"]: item["value"] for item in instructions()}
    assert last["USER"] == "10001:10001"
    assert "/health/live" in last["HEALTHCHECK"] and last["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(last["CMD"])[:2] == ["pserve", "/etc/authserver/production.ini"]
    # Nothing is resolved or compiled, and nothing that the host has is copied but what is named.
    installed = [item["value"] for item in instructions() if "pip install" in item["value"]]
    assert all("--no-deps" in value for value in installed) and "--require-hashes" in installed[0]


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignore = (DEPLOY / "Containerfile.dockerignore").read_text().split()
    assert ignore[0] == "*"
    for item in instructions():
        if item["instruction"] == "COPY" and not item["value"].startswith("--from"):
            for source in item["value"].split()[:-1]:
                assert (CHECKOUT / source).exists() and f"!{source}" in ignore, source


def test_the_ini_of_the_image_takes_from_outside_what_containers_have(
    image_ini: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All secrets may be files, and the server section with the arguments of the image is one that starts."""
    values = {
        "ISSUER": "https://login.example.com",
        "DATABASE_URL": "postgresql+psycopg://authserver:secret@postgresql/authserver",
        "RESOURCES": "https://api.example.com/ = *",
        "SECRET_KEYS": "k1:SkZYHWvlzNd7RlPHg2A0MN29xkJJqrhTnkTvbDcZBVU=",
        "REGISTRATION_TOKENS": "r" * 40,
        "METRICS_TOKENS": "m" * 40,
    }
    for name, text in values.items():
        monkeypatch.delenv(f"AUTHSERVER_{name}", raising=False)
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(f"AUTHSERVER_{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("AUTHSERVER_TRUSTED_PROXIES", "10.0.0.0/8")
    monkeypatch.setenv("AUTHSERVER_LIMITS_STORAGE", "redis://valkey:6379/0")
    loaded = load(appconfig(f"config:{image_ini}").local_conf)
    assert loaded.settings.trusted_proxies == ("10.0.0.0/8",)
    assert loaded.plugin_settings["rate_limits"]["storage"].text == "redis://valkey:6379/0"
    assert "metrics" in loaded.settings.plugins
    arguments = json.loads(instructions()[-1]["value"])[2:]
    context = loadcontext(
        SERVER, f"config:{image_ini}", global_conf=dict(item.split("=") for item in arguments)
    )
    section = Section.read(context.local_conf)
    assert section.adjustments.listen[0][3][:2] == ("0.0.0.0", 6543)
    assert section.management[0][3][:2] == ("0.0.0.0", 16543)


# ---- compose ----------------------------------------------------------------------------------------


def test_the_compose_file_is_one() -> None:
    schema = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    jsonschema.validate(compose, json.loads(schema.read_text()))
    ours = [service for service in compose["services"].values() if service["image"] == "authserver"]
    assert len(ours) == 3
    for service in ours:
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert {f"AUTHSERVER_{name}" for name in VARIABLES} <= {
            name.removesuffix("_FILE") for name in service["environment"]
        }


def test_caddy_reads_its_file() -> None:
    caddy = shutil.which("caddy")
    assert caddy or not os.environ.get("CI"), "caddy is not installed"
    if caddy:
        command = [caddy, "adapt", "--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile", "--validate"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


# ---- Kubernetes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.30", "1.36"])
def test_kubernetes_knows_every_field(version: str) -> None:
    kinds = []
    for name, document in manifests():
        kinds.append(document["kind"])
        if document["kind"] in CUSTOM:
            assert document["apiVersion"].startswith(CUSTOM[document["kind"]]), name
        else:
            kubernetes_validate.validate(document, version, strict=True)
    assert sorted(kinds) == sorted(
        ["Deployment", "Job", "Kustomization", "PodDisruptionBudget", "Service", "Service", "ServiceMonitor"]
    )


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_a_pod_needs_no_rights_and_gets_what_the_ini_takes(kind: str) -> None:
    found = container(kind)
    assert found["securityContext"]["readOnlyRootFilesystem"] is True
    assert found["pod"]["securityContext"]["runAsNonRoot"] is True
    secrets = {item["name"]: item["value"] for item in found["env"]}
    (volume,) = (item for item in found["volumeMounts"] if item["name"] == "secrets")
    for name in ("DATABASE_URL", "SECRET_KEYS", "REGISTRATION_TOKENS", "METRICS_TOKENS"):
        assert secrets[f"AUTHSERVER_{name}_FILE"] == f"{volume['mountPath']}/{name.lower()}"


def test_the_manifests_fit_the_server(image_ini: Path) -> None:
    """Ports, probes and the time to end are those of the INI file of the image."""
    section = Section.read(loadcontext(SERVER, f"config:{image_ini}").local_conf)
    found = container("Deployment")
    ports = {item["name"]: item["containerPort"] for item in found["ports"]}
    first = section.management[0][3][1]
    expected = {f"management-{number}": first + number - 1 for number in range(1, section.processes + 1)}
    assert ports == {"http": 6543, **expected}
    assert found["pod"]["terminationGracePeriodSeconds"] > section.stop_delay + section.stop_time_limit
    paths = {name: found[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in paths.items()} == {
        "startup": "/health/live",
        "readiness": "/health/ready",
        "liveness": "/health/live",
    }
    assert {probe["port"] for probe in paths.values()} == {"management-1"}
    (monitor,) = (document for _, document in manifests() if document["kind"] == "ServiceMonitor")
    assert [item["port"] for item in monitor["spec"]["endpoints"]] == sorted(expected)
    # Nobody can be evicted while the other one is away.
    (kustomization,) = (document for _, document in manifests() if document["kind"] == "Kustomization")
    assert {*kustomization["resources"], "kustomization.yaml", "migration.yaml", "service-monitor.yaml"} == {
        path.name for path in KUBERNETES.iterdir()
    }


# ---- systemd ----------------------------------------------------------------------------------------


def test_systemd_reads_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze or not os.environ.get("CI"), "systemd is not installed"
    units = [CHECKOUT / "docs/examples" / name for name in ("authserver.service", "authserver.socket")]
    for unit in units:
        # It must be a program that there is.
        (tmp_path / unit.name).write_text(
            re.sub(r"/srv/authserver/bin/(pserve|authserver)", sys.executable, unit.read_text())
        )
    if analyze:
        command = [analyze, "verify", *(tmp_path / unit.name for unit in units)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_gives_the_server_the_time_that_it_takes() -> None:
    text = (CHECKOUT / "docs/examples/authserver.service").read_text()
    section = Section.read(loadcontext(SERVER, f"config:{CHECKOUT}/production.ini").local_conf)
    (seconds,) = re.findall(r"TimeoutStopSec=(\d+)", text)
    assert int(seconds) > section.stop_delay + section.stop_time_limit
    (descriptors,) = re.findall(r"LimitNOFILE=(\d+)", text)
    assert int(descriptors) > section.adjustments.connection_limit + 128

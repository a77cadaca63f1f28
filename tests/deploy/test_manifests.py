"""What deploy/ promises: manifests that parse, words the command knows, containers without needless rights."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from wheeltapper_command.main import load_verbs, parser

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "deploy").rglob("*.yaml"))


def documents() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def pod_specs(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pod_specs(value)
    elif isinstance(node, list):
        for value in node:
            yield from pod_specs(value)


def commands() -> Iterator[list[str]]:
    """Every wheeltapper command line in deploy/."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    yield from (re.findall(r'"([^"]+)"', line) for line in dockerfile.splitlines() if line.startswith("CMD"))
    for document in documents():
        if document["kind"] == "RayJob":
            yield shlex.split(document["spec"]["entrypoint"])[1:]
        for pod in pod_specs(document):
            yield from (c["args"] for c in pod["containers"] if "args" in c)


def test_every_command_is_one_that_the_product_has() -> None:
    found = list(commands())
    assert len(found) >= 3
    known = parser(load_verbs())
    for words in found:
        known.parse_args(words)


@pytest.mark.parametrize("pod", [pod for document in documents() for pod in pod_specs(document)])
def test_containers_have_no_needless_rights(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert "memory" in container["resources"]["limits"]


def test_kernels_are_kept_in_a_folder_that_the_scorer_makes_itself() -> None:
    """A mounted volume belongs to the group of its pod: what lies there is executed, so the scorer refuses it."""
    caches = 0
    for pod in (pod for document in documents() for pod in pod_specs(document)):
        for container in pod["containers"]:
            mounts = {Path(mount["mountPath"]) for mount in container["volumeMounts"]}
            for word in container.get("args", ()):
                if word.startswith("--cache="):
                    assert Path(word.removeprefix("--cache=")).parent in mounts
                    caches += 1
    assert caches == 1


def test_the_manifests_name_images_that_the_dockerfile_says_how_to_build() -> None:
    built = set(re.findall(r"-t (\S+) \.", (ROOT / "deploy" / "Dockerfile").read_text()))
    wanted = {c["image"] for document in documents() for pod in pod_specs(document) for c in pod["containers"]}
    assert wanted <= built


def test_images_install_one_package_each_and_run_as_nobody() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    stages = {part.split()[3]: part for part in re.split(r"(?m)^(?=FROM )", text) if part.startswith("FROM base AS")}
    assert set(stages) == {"gateway", "scorer", "trainer"}
    for role, stage in stages.items():
        assert f"wheeltapper-{role}" in stage
        assert "USER 10001" in stage

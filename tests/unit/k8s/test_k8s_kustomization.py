"""The base holds together: what is listed exists, what exists is listed, what is named is defined."""

from collections import Counter

import pytest

from tests.unit.k8s.deployment_files import BASE, GUIDE, KUSTOMIZATION, PYPROJECT, documents, workload_names, workloads

on_every_workload = pytest.mark.parametrize("workload", workload_names(), indirect=True)


def generated_files() -> list[str]:
    return [file for generator in KUSTOMIZATION["configMapGenerator"] for file in generator["files"]]


def names(kind) -> set[str]:
    return {document["metadata"]["name"] for document in documents(kind)}


def test_every_file_of_the_base_is_listed_once_and_every_listed_file_exists():
    listed = ["kustomization.yaml", *KUSTOMIZATION["resources"], *generated_files()]
    assert Counter(listed) == Counter(path.name for path in BASE.iterdir())


def test_no_two_resources_share_kind_and_name():
    repeated = Counter((d["kind"], d["metadata"]["name"]) for d in documents())
    assert [key for key, times in repeated.items() if times > 1] == []


def test_the_namespace_is_the_one_that_everything_is_put_into_and_it_enforces_restricted_pods():
    (namespace,) = documents("Namespace")
    assert namespace["metadata"]["name"] == KUSTOMIZATION["namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert [d["metadata"]["name"] for d in documents() if "namespace" in d["metadata"]] == []


def test_every_resource_says_of_what_it_is_part():
    parts = {d["metadata"]["labels"].get("app.kubernetes.io/part-of") for d in documents()}
    assert parts == {"sekisho"}


def test_the_kustomization_tags_exactly_the_images_that_run_with_this_release():
    tagged = {image["name"]: image["newTag"] for image in KUSTOMIZATION["images"]}
    assert tagged == {w.container["image"]: PYPROJECT["project"]["version"] for w in workloads()}


@on_every_workload
def test_every_claim_config_map_secret_and_account_that_a_pod_names_is_defined(workload):
    for volume in workload.pod["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in names("PersistentVolumeClaim")
        elif "configMap" in volume:
            assert volume["configMap"]["name"] in {g["name"] for g in KUSTOMIZATION["configMapGenerator"]}
        elif "secret" in volume:
            assert f"create secret generic {volume['secret']['secretName']} --from-file=" in GUIDE.read_text()
        else:
            assert "emptyDir" in volume
    assert workload.pod["serviceAccountName"] in names("ServiceAccount")


def test_secrets_are_named_and_never_held():
    assert documents("Secret") == []
    assert "secretGenerator" not in KUSTOMIZATION
    for workload in workloads():
        for variable in workload.container.get("env", []):
            assert variable["valueFrom"].keys() == {"secretKeyRef"}


def test_the_guide_creates_every_secret_that_a_pod_names():
    guide = " ".join(GUIDE.read_text().split())
    for workload in workloads():
        for variable in workload.container.get("env", []):
            secret = variable["valueFrom"]["secretKeyRef"]
            assert f"create secret generic {secret['name']} --from-literal={secret['key']}=" in guide


@on_every_workload
def test_a_disruption_budget_guards_each_workload_and_lets_single_pods_go(workload):
    (budget,) = [
        b for b in documents("PodDisruptionBudget") if b["spec"]["selector"]["matchLabels"] == workload.selector
    ]
    assert budget["spec"]["maxUnavailable"] == 1
    assert workload.document["spec"]["replicas"] > 1

"""Each Deployment starts a program with flags that it has, and is probed, bounded, confined and stopped right."""

import pytest
import yaml

from contracts.manifest import FILE_NAME
from gateway.prediction_log.log_writer import CLOSE_TIMEOUT_S
from gateway.routes_file import read_routes
from model_workers.server import FINISH_S_MAX
from tests.unit.k8s.deployment_files import (
    BASE,
    GUIDE,
    KUSTOMIZATION,
    Workload,
    run_program,
    services_of,
    workload_names,
    workloads,
)

PROGRESS_DEADLINE_S_DEFAULT = 600
"""Kubernetes' own, after which a rollout counts as failed."""

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
PATHS_BY_SCRIPT = {
    "sekisho-gateway": {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"},
    "sekisho-worker": {
        "startupProbe": "/v2/health/ready",
        "livenessProbe": "/v2/health/live",
        "readinessProbe": "/v2/health/ready",
    },
}
HEALTH_PORT_BY_SCRIPT = {"sekisho-gateway": "admin", "sekisho-worker": "http"}

on_every_workload = pytest.mark.parametrize("workload", workload_names(), indirect=True)


def publisher_pod() -> dict:
    """The pod that the guide gives for copying models into the repository's volume."""
    (block,) = [part for part in GUIDE.read_text().split("```yaml\n")[1:] if "kind: Pod" in part]
    return yaml.safe_load(block.partition("```")[0])


def pods() -> list:
    specs = [(w.name, w.pod) for w in workloads()] + [("publisher of the guide", publisher_pod()["spec"])]
    return [pytest.param(pod, id=name) for name, pod in specs]


def test_the_base_runs_a_gateway_and_the_pair_of_churn_models_on_both_runtimes():
    images = {w.name: w.container["image"] for w in workloads()}
    assert images == {
        "gateway": "sekisho-gateway",
        "worker-churn-1": "sekisho-worker-onnx",
        "worker-churn-2": "sekisho-worker-lightgbm",
    }


@on_every_workload
def test_every_argument_is_a_flag_of_the_program_with_a_value_that_it_takes(workload):
    assert workload.options.keys() <= workload.program.flags
    # Arguments are read in turn, so a wrong value is refused before --help is come to.
    shown = run_program(workload.program.module, *workload.container["args"], "--help")
    assert shown.returncode == 0, shown.stderr


def test_a_wrong_value_before_help_is_refused():
    assert run_program("gateway", "--port=http", "--help").returncode == 2
    assert run_program("model_workers", "--port=http", "--help").returncode == 2


@on_every_workload
def test_every_variable_is_one_that_the_program_reads(workload):
    for variable in workload.container.get("env", []):
        assert f"[{variable['name']};" in workload.program.help


@on_every_workload
def test_no_variable_comes_from_a_service_that_happens_to_be_called_like_the_product(workload):
    assert workload.pod["enableServiceLinks"] is False


@on_every_workload
def test_flags_container_ports_services_image_and_the_programs_defaults_agree_on_ports(workload):
    flagged = {int(v) for flag, v in workload.options.items() if flag.endswith("port")}
    services = {port["port"] for service in services_of(workload) for port in service["spec"]["ports"]}
    assert flagged == set(workload.ports.values()) == workload.image.ports == workload.program.default_ports == services


@on_every_workload
def test_services_send_to_container_ports_by_their_names(workload):
    for service in services_of(workload):
        for port in service["spec"]["ports"]:
            assert workload.ports[port["targetPort"]] == port["port"]


def test_the_admin_port_is_behind_another_service_than_the_data_port():
    (gateway,) = [w for w in workloads() if w.name == "gateway"]
    ports = [[p["targetPort"] for p in s["spec"]["ports"]] for s in services_of(gateway)]
    assert sorted(ports) == [["admin"], ["http"]]


@on_every_workload
def test_programs_listen_on_every_interface_where_probes_and_services_come_in(workload):
    hosts = {flag: value for flag, value in workload.options.items() if flag.endswith("host")}
    opened = {flag.replace("port", "host") for flag in workload.options if flag.endswith("port")}
    assert hosts.keys() == opened & set(workload.program.flags)
    assert set(hosts.values()) == {"0.0.0.0"}


@on_every_workload
def test_probes_ask_the_programs_own_health_paths_on_the_port_that_has_them(workload):
    probes = {name: workload.container[name]["httpGet"] for name in PROBES}
    assert {name: probe["path"] for name, probe in probes.items()} == PATHS_BY_SCRIPT[workload.program.script]
    assert {probe["port"] for probe in probes.values()} == {HEALTH_PORT_BY_SCRIPT[workload.program.script]}


@on_every_workload
def test_a_slow_start_is_waited_for_and_yet_fails_the_rollout_in_its_own_time(workload):
    probe = workload.container["startupProbe"]
    window_s = probe["periodSeconds"] * probe["failureThreshold"]
    assert 60 <= window_s < PROGRESS_DEADLINE_S_DEFAULT


@on_every_workload
def test_a_rollout_never_takes_capacity_away(workload):
    assert workload.document["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@on_every_workload
def test_a_stop_has_time_for_the_grace_then_what_is_in_flight_then_the_log(workload):
    finish_s = {"sekisho-gateway": longest_deadline_s() + CLOSE_TIMEOUT_S, "sekisho-worker": FINISH_S_MAX}
    grace_s = float(workload.options["--shutdown-grace-s"])
    # Serving on must outlast the readiness probe's verdict, for load balancers that go by it alone.
    readiness = workload.container["readinessProbe"]
    assert grace_s > readiness["periodSeconds"] * readiness["failureThreshold"]
    assert workload.pod["terminationGracePeriodSeconds"] > grace_s + finish_s[workload.program.script]


def longest_deadline_s() -> float:
    return max(route.deadline_ms for route in read_routes(BASE / "models.yaml").models.values()) / 1_000


@on_every_workload
def test_resources_are_asked_for_and_bounded_and_memory_is_never_borrowed(workload):
    requests, limits = workload.container["resources"]["requests"], workload.container["resources"]["limits"]
    assert requests.keys() == limits.keys() == {"cpu", "memory", "ephemeral-storage"}
    assert requests["memory"] == limits["memory"]


def test_the_gateway_never_runs_on_borrowed_cpu():
    (gateway,) = [w for w in workloads() if w.name == "gateway"]
    resources = gateway.container["resources"]
    assert resources["requests"] == resources["limits"]


@pytest.mark.parametrize("pod", pods())
def test_pods_are_confined_as_the_restricted_standard_asks_and_more(pod):
    assert pod["automountServiceAccountToken"] is False
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@on_every_workload
def test_replicas_are_spread_over_zones_and_nodes_each_revision_by_itself(workload):
    constraints = {c["topologyKey"]: c for c in workload.pod["topologySpreadConstraints"]}
    assert constraints.keys() == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    for constraint in constraints.values():
        assert constraint["labelSelector"]["matchLabels"] == workload.selector
        assert constraint["matchLabelKeys"] == ["pod-template-hash"]


@on_every_workload
def test_a_deployment_selects_its_own_pods_and_nobody_elses(workload):
    chosen = [w.name for w in workloads() if workload.selector.items() <= w.labels.items()]
    assert chosen == [workload.name]


def test_the_gateway_reads_its_routes_from_the_config_map_and_logs_where_it_may_write():
    (gateway,) = [w for w in workloads() if w.name == "gateway"]
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    mounted = {"name": generator["name"]}
    (config,) = [path for path, mount in gateway.mounts.items() if mount.get("configMap") == mounted]
    files = {f"{config}/{name}" for name in generator["files"]}
    assert files == {gateway.options["--config"]}
    log = gateway.mounts[gateway.options["--log-dir"]]
    assert "sizeLimit" in log["emptyDir"]
    assert not log.get("readOnly")


@pytest.mark.parametrize("workload", [n for n in workload_names() if n.startswith("worker-")], indirect=True)
def test_a_worker_reads_one_version_from_the_repository_and_cannot_write_there(workload):
    repository = workload.mounts[workload.options["--repository"]]
    assert repository["persistentVolumeClaim"] == {"claimName": "model-repository"}
    assert repository["readOnly"] is True
    assert workload.options["--model"] == f"{workload.labels['sekisho/model']}@{workload.labels['sekisho/version']}"


def test_the_workers_differ_in_version_and_runtime_alone():
    files = {name: (BASE / f"{name}.yaml").read_text() for name in ("worker-churn-1", "worker-churn-2")}
    renamed = files["worker-churn-2"].replace("churn-2", "churn-1").replace("churn@2", "churn@1")
    renamed = renamed.replace('version: "2"', 'version: "1"').replace("worker-lightgbm", "worker-onnx")
    assert renamed == files["worker-churn-1"]


def test_the_guides_publisher_writes_the_volume_that_the_workers_read():
    pod = publisher_pod()
    publisher = Workload({"metadata": pod["metadata"], "spec": {"template": pod}})
    (mount,) = publisher.mounts.values()
    assert mount["persistentVolumeClaim"] == {"claimName": "model-repository"}
    assert publisher.pod["securityContext"]["fsGroup"] == 10001
    assert f"MODEL/VERSION/{FILE_NAME}" in GUIDE.read_text()

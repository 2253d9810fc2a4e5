"""The gateway's files in the base are ones that the gateway takes, and lead to workers that the base runs."""

from urllib.parse import urlsplit

from gateway.configuration.experiments_file import read_experiments
from gateway.routes_file import read_routes
from tests.unit.k8s.deployment_files import BASE, documents, workloads


def routed_workers() -> dict[str, str]:
    """Worker URL to the `model@version` that the route says it serves."""
    routes = read_routes(BASE / "models.yaml").models
    return {
        url: f"{model}@{version}"
        for model, route in routes.items()
        for version, served in route.versions.items()
        for url in served.workers
    }


def served_behind(url: str) -> list[str]:
    """What the workers behind a URL's Service serve, if the Service listens on the URL's port."""
    address = urlsplit(url)
    return [
        workload.options["--model"]
        for service in documents("Service")
        if service["metadata"]["name"] == address.hostname
        and address.port in {port["port"] for port in service["spec"]["ports"]}
        for workload in workloads()
        if service["spec"]["selector"].items() <= workload.labels.items()
    ]


def test_every_route_leads_to_a_service_whose_workers_serve_that_version():
    assert {url: served_behind(url) for url in routed_workers()} == {u: [v] for u, v in routed_workers().items()}


def test_every_worker_of_the_base_is_routed_to():
    run = {w.options["--model"] for w in workloads() if "--model" in w.options}
    assert run == set(routed_workers().values())


def test_the_experiment_splits_between_versions_that_are_routed():
    experiments = read_experiments(BASE.parent / "experiments" / "churn.yaml", read_routes(BASE / "models.yaml").models)
    (experiment,) = experiments["churn"]
    assert {variant.version for variant in experiment.variants} == {"1", "2"}

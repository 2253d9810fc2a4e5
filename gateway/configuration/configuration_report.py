"""What the configuration in force is, how old, and what is wrong with its sources: for scrapes and for people."""

from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.configuration.catalogue import Catalogue
from gateway.configuration.last_good import StateDirectory
from gateway.configuration.live_configuration import LiveConfiguration
from gateway.configuration.registered_views import RegisteredViews


class ConfigurationReport:
    """Reads the parts when it is asked; a metrics collector."""

    def __init__(
        self, live: LiveConfiguration, catalogue: Catalogue, views: RegisteredViews, state: StateDirectory
    ) -> None:
        self._live, self._catalogue, self._views, self._state = live, catalogue, views, state

    def status(self) -> dict[str, Any]:
        """Tell people."""
        live, views = self._live, self._views
        return {
            "revision": live.revision,
            "changes": live.changes,
            "run_time_changes": sorted(live.current.overlays),
            "pending": self._catalogue.pending,
            "files": {"age_s": round(live.age_s, 1), "problem": live.problem},
            "views": {
                "count": len(views.views),
                "age_s": round(views.age_s, 1),
                "from_disk": views.from_disk,
                "problem": views.problem,
            },
            "signatures_from_disk": self._catalogue.signatures_from_disk,
            "state": {"problem": self._state.problem},
        }

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        live, views = self._live, self._views
        yield GaugeMetricFamily(
            "sekisho_configuration_revision",
            "A number made of the configuration in force: equal where that is equal",
            value=int(live.revision, 16),
        )
        yield CounterMetricFamily(
            "sekisho_configuration_changes", "Configurations that took another's place", value=live.changes
        )
        yield _by_source(
            "sekisho_configuration_age_seconds",
            "How long ago a source last said what is in force",
            {"files": live.age_s, "views": views.age_s},
        )
        yield _by_source(
            "sekisho_configuration_from_disk",
            "What stands in from the state directory, because its source has not answered since the start",
            {"views": views.from_disk, "signatures": self._catalogue.signatures_from_disk},
        )
        yield _by_source(
            "sekisho_configuration_problem",
            "1 where a source is wrong or cannot be read, and the last good configuration stays",
            {
                "files": live.problem is not None,
                "views": views.problem is not None,
                "state": self._state.problem is not None,
            },
        )


def _by_source(name: str, help_text: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=["source"])
    for source, value in values.items():
        family.add_metric([source], float(value))
    return family

"""All settings of the engine, with their units, in one schema.

Each of a file, the environment and flags overrides the ones before. The operator writes the same file, so both sides
validate with this package, which therefore needs only pydantic.
"""

from tdpipe.core.settings.cluster import ClusterSettings
from tdpipe.core.settings.load import Settings, load_settings
from tdpipe.core.settings.model import ModelSettings
from tdpipe.core.settings.pipeline import CacheSettings, PipelineSettings
from tdpipe.core.settings.recovery import ProcessSettings, RecoverySettings
from tdpipe.core.settings.scheduler import PredictorSettings, SchedulerSettings
from tdpipe.core.settings.server import ServerSettings

__all__ = [
    "CacheSettings",
    "ClusterSettings",
    "ModelSettings",
    "PipelineSettings",
    "PredictorSettings",
    "ProcessSettings",
    "RecoverySettings",
    "SchedulerSettings",
    "ServerSettings",
    "Settings",
    "load_settings",
]

"""Where metrics go besides metrics.jsonl (which is always written): one file a service."""

from memfactory.training.trackers.base import TrackedRun, Tracker

__all__ = ["TrackedRun", "Tracker"]

"""The run folder: records on disk, metrics, trackers."""

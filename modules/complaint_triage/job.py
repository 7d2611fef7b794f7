"""A run of this module's phases, under its settings."""

from mlops import pipeline
from modules.complaint_triage.settings import Settings

Job = pipeline.Job[Settings]

"""A run of this module's phases, under its settings."""

from mlops import pipeline
from modules.fraud_detection.settings import Settings

Job = pipeline.Job[Settings]

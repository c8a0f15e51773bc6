"""Imported by the server of jobs: importing the engine takes most of the time of a tiny job."""

from pipeline.ops import symbolic

symbolic.engine()

"""Drives and measurements, run by hand: figures are ratios or counts, never asserted in tests."""

from __future__ import annotations

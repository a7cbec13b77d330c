"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a loaded machine an example takes as long as it takes; that says nothing about what is tested.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")

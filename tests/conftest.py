"""What all tests share."""

from hypothesis import HealthCheck, settings

# Several files run at a time, on machines that do other things as well: how long an example takes
# says nothing about the code. Tests that are about time measure it themselves.
settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-machine")

"""The same examples in every run."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "kantad-values",
    derandomize=True,
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("kantad-values")

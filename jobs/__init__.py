"""The standard jobs. Each module is one job, and an example of how to write one.

Installed as ``minimr.jobs`` and found by their entry points (group ``minimr.jobs``): each module
has a factory ``job(settings) -> minimr.Job``. They use nothing but minimr's public names.
"""

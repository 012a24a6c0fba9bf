"""The standard jobs, installed as ``minimr.jobs``: each file is also documentation of the API."""

"""What Prometheus would see of a process that serves its figures."""

import http.client
from pathlib import Path

__all__ = ["figures"]


def figures(directory: Path, token_file: Path) -> dict[str, float]:
    """By name, labels left out, of the process whose own directory this is."""
    address = (directory / "metrics.address").read_text().strip()
    connection = http.client.HTTPConnection(address, timeout=5)
    token = token_file.read_text().strip()
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name.partition("{")[0]: float(value) for name, value in samples}

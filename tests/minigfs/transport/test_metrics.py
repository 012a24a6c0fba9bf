"""Figures are in Prometheus' format, and only for who has the token."""

import http.client
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from minigfs.errors import InvalidConfig
from minigfs.transport.metrics import Counters, Metric, encode_metrics, process_metrics
from minigfs.transport.metrics_http import MetricsServer
from minigfs.transport.security import Security, TlsFiles

TOKEN = b"the-token"


def collect() -> Iterator[Metric]:
    yield Metric("minigfs_things", "Things.", 3)


def get(address: str, path: str = "/metrics", token: bytes | None = TOKEN) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token.decode()}"}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture
def address() -> Iterator[str]:
    server = MetricsServer(collect, "127.0.0.1:0", Security(TOKEN))
    yield server.start()
    server.stop()


def test_the_text_is_what_prometheus_reads() -> None:
    metrics = [
        Metric("a_bytes", 'Says "a"\nor \\.', 1.5),
        Metric("b_total", "B.", [({"host": 'h"1\\\n', "id": "x"}, 2), ({}, 0)]),
    ]
    assert encode_metrics(metrics).decode() == (
        '# HELP a_bytes Says "a"\\nor \\\\.\n'
        "# TYPE a_bytes gauge\n"
        "a_bytes 1.5\n"
        "# HELP b_total B.\n"
        "# TYPE b_total counter\n"
        'b_total{host="h\\"1\\\\\\n",id="x"} 2\n'
        "b_total 0\n"
    )


def test_the_process_is_described_under_the_usual_names() -> None:
    names = {metric.name for metric in process_metrics()}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total"} <= names


def test_counters_lose_nothing_to_threads() -> None:
    counters = Counters({"n_total": "N."})
    threads = [
        threading.Thread(target=lambda: [counters.add("n_total") for _ in range(2_000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [metric.samples for metric in counters.metrics()] == [8_000]


def test_who_has_the_token_gets_the_figures(address: str) -> None:
    status, body = get(address)
    assert (status, body) == (200, encode_metrics(collect()))


@pytest.mark.parametrize("token", [None, b"", b"the-tokem", b"the-token2"])
def test_nobody_else_gets_anything(address: str, token: bytes | None) -> None:
    status, body = get(address, token=token)
    assert status == 401
    assert b"minigfs_things" not in body
    assert TOKEN not in body


def test_there_is_nothing_but_metrics(address: str) -> None:
    assert get(address, "/")[0] == 404
    assert get(address, "/metrics/../etc")[0] == 404


def test_an_address_for_others_needs_tls() -> None:
    with pytest.raises(InvalidConfig, match="TLS"):
        MetricsServer(collect, "0.0.0.0:0", Security(TOKEN))


def test_with_tls_the_figures_travel_encrypted(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / name for name in ("ca", "certificate", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    certificate.cert_chain_pems[0].write_to_path(files["certificate"])
    certificate.private_key_pem.write_to_path(files["key"])
    tls = TlsFiles(**{name: str(path) for name, path in files.items()})
    server = MetricsServer(collect, "127.0.0.1:0", Security(TOKEN, "", tls))
    bound = server.start(tmp_path)
    try:
        assert (tmp_path / "metrics.address").read_text() == f"{bound}\n"
        context = ssl.create_default_context(cafile=str(files["ca"]))
        connection = http.client.HTTPSConnection(bound, context=context, timeout=5)
        connection.request("GET", "/metrics", headers={"Authorization": "Bearer the-token"})
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.stop()

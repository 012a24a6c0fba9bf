"""What every method of the file system needs: whose cluster it is, and what a path means."""

from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.utils import stringify_path

from minigfs.errors import InvalidConfig
from minigfs.fs.transactions import AtomicTransaction

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient
    from minigfs.client.config import ClientConfig

__all__ = ["ClusterPaths"]

_PROTOCOL = "minigfs"


class ClusterPaths(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """See `minigfs.fs.MinigfsFileSystem` for the parameters."""

    protocol = _PROTOCOL
    root_marker = "/"
    cachable = True
    transaction_type = AtomicTransaction

    def __init__(
        self,
        masters: str | list[str] | tuple[str, ...] | None = None,
        token_file: str | None = None,
        home: str | None = None,
        timeout_ms: int = 10_000,
        tls_ca: str | None = None,
        auto_mkdir: bool = True,
    ) -> None:
        super().__init__()
        self._masters = masters
        self._token_file = token_file
        self._home = home
        self._timeout_ms = timeout_ms
        self._tls_ca = tls_ca
        self._auto_mkdir = auto_mkdir
        self._lazy_client: MinigfsClient | None = None

    @property
    def client(self) -> "MinigfsClient":
        """The client underneath, made when first asked for."""
        if self._lazy_client is None:
            from minigfs.client.client import MinigfsClient

            self._lazy_client = MinigfsClient(self._config())
        return self._lazy_client

    def _config(self) -> "ClientConfig":
        from minigfs.client.config import ClientConfig

        return ClientConfig.discover(
            masters=self._masters,
            token_file=self._token_file,
            home=self._home,
            timeout_ms=self._timeout_ms,
            tls_ca=self._tls_ca,
        )

    @property
    def fsid(self) -> str:
        return f"{_PROTOCOL}-{self._cluster_id}"

    @property
    def _cluster_id(self) -> str:
        return self.client.config.cluster_id or self.client.report().cluster_id

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        for prefix in (f"{_PROTOCOL}://", f"{_PROTOCOL}::"):
            if text.startswith(prefix):
                _authority, _slash, text = text.removeprefix(prefix).partition("/")
        return "/" + "/".join(part for part in text.split("/") if part)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        text = stringify_path(path)
        if not text.startswith(f"{_PROTOCOL}://"):
            return {}
        authority = text.removeprefix(f"{_PROTOCOL}://").partition("/")[0]
        if not authority:
            return {}
        if ":" not in authority:
            raise InvalidConfig(
                f"{text}: {authority!r} is no HOST:PORT of a master; "
                f"a path has three slashes: {_PROTOCOL}:///{text.removeprefix(f'{_PROTOCOL}://')}"
            )
        return {"masters": authority}

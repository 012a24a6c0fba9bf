"""Libraries that people use with a file system: each writes to ours and reads it back."""

import subprocess
import sys

import dask
import dask.dataframe as dd
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from minigfs.fs import MinigfsFileSystem

pytestmark = pytest.mark.e2e

TABLE = pa.table({"n": list(range(20_000)), "s": [f"name {n % 97}" for n in range(20_000)]})


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_pandas(fs: MinigfsFileSystem, root: str, suffix: str) -> None:
    frame = TABLE.to_pandas()
    url = f"minigfs://{root}/frame.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(url, storage_options=fs.storage_options)
        back = pd.read_parquet(url, storage_options=fs.storage_options)
    else:
        frame.to_csv(url, index=False, storage_options=fs.storage_options)
        back = pd.read_csv(url, storage_options=fs.storage_options)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)


def test_arrow_parquet(fs: MinigfsFileSystem, root: str) -> None:
    pq.write_table(TABLE, f"{root}/t.parquet", filesystem=fs)
    assert pq.read_table(f"{root}/t.parquet", filesystem=fs).equals(TABLE)
    part = pq.read_table(f"{root}/t.parquet", filesystem=fs, filters=[("n", "<", 5)])
    assert part.num_rows == 5


def test_arrow_dataset(fs: MinigfsFileSystem, root: str) -> None:
    ds.write_dataset(
        TABLE.append_column("k", pa.array([n % 3 for n in range(TABLE.num_rows)])),
        f"{root}/set",
        format="parquet",
        partitioning=ds.partitioning(pa.schema([("k", pa.int64())]), flavor="hive"),
        filesystem=fs,
    )
    back = ds.dataset(f"{root}/set", format="parquet", partitioning="hive", filesystem=fs)
    assert back.to_table(columns=["n", "s"]).sort_by("n").equals(TABLE)
    assert len(back.files) == 3


def test_duckdb(fs: MinigfsFileSystem, root: str) -> None:
    pq.write_table(TABLE, f"{root}/t.parquet", filesystem=fs)
    with duckdb.connect() as connection:
        connection.register_filesystem(fs)
        source = f"read_parquet('minigfs://{root}/*.parquet')"
        assert connection.execute(f"select sum(n), count(*) from {source}").fetchall() == [
            (sum(range(20_000)), 20_000)
        ]
        connection.execute(
            f"copy (select * from {source} where n < 1000) "
            f"to 'minigfs://{root}/out/part.parquet' (format parquet)"
        )
        connection.execute(f"copy (select * from {source}) to 'minigfs://{root}/t.csv' (header)")
    part = pq.read_table(f"{root}/out/part.parquet", filesystem=fs)
    assert part.to_pydict() == TABLE.slice(0, 1000).to_pydict()
    assert pd.read_csv(fs.open(f"{root}/t.csv")).n.sum() == sum(range(20_000))


def test_polars_through_file_objects(fs: MinigfsFileSystem, root: str) -> None:
    frame = pl.from_arrow(TABLE)
    assert isinstance(frame, pl.DataFrame)
    with fs.open(f"{root}/t.parquet", "wb") as file:
        frame.write_parquet(file)
    with fs.open(f"{root}/t.parquet", "rb") as file:
        assert pl.read_parquet(file).equals(frame)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:.*inplace.*")  # what dask does not know yet of this pandas
def test_dask(fs: MinigfsFileSystem, root: str) -> None:
    frame = dd.from_pandas(TABLE.to_pandas(), npartitions=3)
    for kind in ("parquet", "csv"):
        url = f"minigfs://{root}/{kind}"
        with dask.config.set(scheduler="threads"):
            if kind == "parquet":
                frame.to_parquet(url, storage_options=fs.storage_options)
                back = dd.read_parquet(url, storage_options=fs.storage_options)
            else:
                frame.to_csv(f"{url}/*.csv", index=False, storage_options=fs.storage_options)
                back = dd.read_csv(
                    f"{url}/*.csv", storage_options=fs.storage_options, blocksize=50_000
                )
            assert back.n.sum().compute() == sum(range(20_000))
            assert len(back) == TABLE.num_rows
    assert len(fs.ls(f"{root}/parquet")) >= 3


@pytest.mark.slow
def test_ray_data(fs: MinigfsFileSystem, root: str) -> None:
    """The file system travels to Ray's workers, which write and read in processes of their own."""
    script = f"""
import ray
from minigfs.fs import MinigfsFileSystem
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
fs = MinigfsFileSystem(home={fs.storage_options["home"]!r})
ray.data.range(20_000).repartition(3).write_parquet({root!r} + "/ray", filesystem=fs)
back = ray.data.read_parquet({root!r} + "/ray", filesystem=fs)
assert (back.count(), back.sum("id")) == (20_000, sum(range(20_000)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert sum(name.endswith(".parquet") for name in fs.ls(f"{root}/ray", detail=False)) >= 3

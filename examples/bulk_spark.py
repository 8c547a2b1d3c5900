"""Score a million prompts with Spark; needs ``pip install "pyspark>=4.1" pandas pyarrow``, a Java
runtime and no key.

Run it with ``python examples/bulk_spark.py``, with another number of made-up prompts, or with your own: ``python
examples/bulk_spark.py prompts.parquet scored``, where a column is called "prompt", writes parquet files to the folder
"scored". Under ``spark-submit`` the cluster is the one that you name there.
"""

from __future__ import annotations

import os
import sys
import time

import pyarrow as pa  # type: ignore[import-untyped]
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType

from routellm_core import RoutingPolicy, WinRates

COUNT = 1_000_000
STRONG_FRACTION = 0.3

scorer = WinRates("mf")  # travels to the workers as a name; each loads the router once, for all its batches


def score(prompts: pa.Array) -> pa.Array:
    return scorer(prompts)


win_rate = F.arrow_udf(score, DoubleType())  # before Spark 4.1: pandas_udf, from pd.Series to pd.Series


def made_up(spark: SparkSession, count: int) -> DataFrame:
    """Prompts that are all different, in the place of your own."""
    number = F.col("id").cast("string")
    return spark.range(count).select(
        "id", F.concat(F.lit("Prove that "), number, F.lit(" is not prime.")).alias("prompt")
    )


def main(source: str = str(COUNT), out: str | None = None) -> None:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the workers are whatever "python3" is
    session = SparkSession.builder.appName("routellm").config("spark.ui.enabled", "false")
    spark = session.config("spark.sql.execution.arrow.maxRecordsPerBatch", "4096").getOrCreate()
    prompts = made_up(spark, int(source)) if source.isdecimal() else spark.read.parquet(source)
    scored = prompts.withColumn("win_rate", win_rate("prompt"))
    started = time.perf_counter()
    if out is not None:
        scored.write.parquet(out)
        scored = spark.read.parquet(out)
    threshold = RoutingPolicy("mf", strong_fraction=STRONG_FRACTION).threshold
    is_strong = (F.col("win_rate") >= threshold).cast("int")
    count, strong = scored.agg(F.count("win_rate"), F.sum(is_strong)).first()
    seconds = time.perf_counter() - started
    print(f"{count:,} prompts in {seconds:.0f} s; {strong / count:.1%} strong at a threshold of {threshold:.3f}")
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Write docs/manifest.schema.json and the schemas of results from the classes that they describe."""

import inspect
from pathlib import Path

import msgspec

from reid_edge.benchmark.evaluation_result import Evaluation
from reid_edge.benchmark.result import BenchmarkResult
from reid_edge.manifest import Manifest


def manifest_schema() -> bytes:
    return _schema(Manifest)


def benchmark_schema() -> bytes:
    return _schema(BenchmarkResult)


def evaluation_schema() -> bytes:
    return _schema(Evaluation)


def _schema(record: type) -> bytes:
    schema = msgspec.json.schema(record)
    for definition in schema["$defs"].values():
        definition["description"] = inspect.cleandoc(definition["description"])  # as Python 3.13 does by itself
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


if __name__ == "__main__":
    Path(__file__).with_name("manifest.schema.json").write_bytes(manifest_schema())
    Path(__file__).with_name("benchmark.schema.json").write_bytes(benchmark_schema())
    Path(__file__).with_name("evaluation.schema.json").write_bytes(evaluation_schema())

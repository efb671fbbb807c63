"""A minimal OpenTelemetry collector: takes spans over OTLP/gRPC and appends them to a file, one JSON line each.

`python -m demo.otlp_sink --port 4317 --spans spans.jsonl`
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Iterable
from concurrent import futures
from pathlib import Path
from typing import Any, TextIO

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return value.bytes_value.hex()
    return getattr(value, kind) if kind else None


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


class Sink(TraceServiceServicer):
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        with self._lock:
            for resource in request.resource_spans:
                service = _attributes(resource.resource.attributes).get("service.name")
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._file.write(json.dumps({"service": service, **_span(span)}) + "\n")
            self._file.flush()
        return ExportTraceServiceResponse()


def _span(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind,
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "startUnixNano": span.start_time_unix_nano,
        "endUnixNano": span.end_time_unix_nano,
        "status": span.status.code,
        "attributes": _attributes(span.attributes),
        "links": [{"traceId": link.trace_id.hex(), "spanId": link.span_id.hex()} for link in span.links],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--spans", type=Path, required=True, help="file to append the spans to")
    arguments = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    # Without SO_REUSEPORT a port that is in use is an error, not a second server that takes half of the spans.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), options=[("grpc.so_reuseport", 0)])
    with arguments.spans.open("a") as file:
        add_TraceServiceServicer_to_server(Sink(file), server)
        server.add_insecure_port(f"127.0.0.1:{arguments.port}")
        server.start()
        stop.wait()
        server.stop(grace=0.5).wait()


if __name__ == "__main__":
    main()

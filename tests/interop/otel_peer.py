"""OpenTelemetry-Python as a peer.

It reads requests from stdin and writes responses to stdout, one line of JSON each.
"""

import json
import logging
import sys
from importlib.metadata import version

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.aws import AwsXRayPropagator
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState

FORMATS = {
    "tracecontext": TraceContextTextMapPropagator(),
    "baggage": W3CBaggagePropagator(),
    "b3": B3SingleFormat(),
    "b3multi": B3MultiFormat(),
    "jaeger": JaegerPropagator(),
    "xray": AwsXRayPropagator(),
}


class Headers(Getter):
    """The headers of a request. Their names are case-insensitive."""

    def get(self, carrier, key):
        return carrier.get(key.lower())

    def keys(self, carrier):
        return list(carrier)


def inject(request):
    ctx = {}
    if request.get("trace"):
        span = trace.SpanContext(
            trace_id=int(request["trace"], 16),
            span_id=int(request["span"], 16),
            is_remote=False,
            trace_flags=trace.TraceFlags(int(request["sampled"])),
            trace_state=TraceState(request["state"]),
        )
        ctx = trace.set_span_in_context(trace.NonRecordingSpan(span), ctx)
    for key, value in request["baggage"]:
        ctx = baggage.set_baggage(key, value, ctx)
    carrier = {}
    FORMATS[request["format"]].inject(carrier, ctx)
    return {"headers": list(carrier.items())}


def extract(request):
    carrier = {}
    for name, value in request["headers"]:
        carrier.setdefault(name.lower(), []).append(value)
    ctx = FORMATS[request["format"]].extract(carrier, {}, Headers())
    span = trace.get_current_span(ctx).get_span_context()
    found = None
    if span.is_valid:
        found = {
            "trace": trace.format_trace_id(span.trace_id),
            "span": trace.format_span_id(span.span_id),
            "sampled": span.trace_flags.sampled,
            "state": list((span.trace_state or {}).items()),
        }
    return {"span": found, "baggage": [[key, value, ""] for key, value in baggage.get_all(ctx).items()]}


logging.disable(logging.CRITICAL)
print(json.dumps("OpenTelemetry-Python " + version("opentelemetry-api")), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"inject": inject, "extract": extract}[request["do"]](request)), flush=True)

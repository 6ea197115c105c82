"""OpenTelemetry-Python as a peer: one question a line on stdin, one answer a line on stdout, both JSON."""

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
    """Of a request: the case of their names does not count."""

    def get(self, carrier, key):
        return carrier.get(key.lower())

    def keys(self, carrier):
        return list(carrier)


def inject(question):
    ctx = {}
    if question.get("trace"):
        span = trace.SpanContext(
            trace_id=int(question["trace"], 16),
            span_id=int(question["span"], 16),
            is_remote=False,
            trace_flags=trace.TraceFlags(int(question["sampled"])),
            trace_state=TraceState(question["state"]),
        )
        ctx = trace.set_span_in_context(trace.NonRecordingSpan(span), ctx)
    for key, value in question["baggage"]:
        ctx = baggage.set_baggage(key, value, ctx)
    carrier = {}
    FORMATS[question["format"]].inject(carrier, ctx)
    return {"headers": list(carrier.items())}


def extract(question):
    carrier = {}
    for name, value in question["headers"]:
        carrier.setdefault(name.lower(), []).append(value)
    ctx = FORMATS[question["format"]].extract(carrier, {}, Headers())
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
    asked = json.loads(line)
    print(json.dumps({"inject": inject, "extract": extract}[asked["do"]](asked)), flush=True)

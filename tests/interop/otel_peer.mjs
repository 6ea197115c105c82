// OpenTelemetry-JS as a peer.
// It reads requests from stdin and writes responses to stdout, one line of JSON each.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

// The packages are installed in the working directory, not beside this file.
const require = createRequire(`${process.cwd()}/`);
const { ROOT_CONTEXT, baggageEntryMetadataFromString, propagation, trace } = require('@opentelemetry/api');
const core = require('@opentelemetry/core');
const { B3InjectEncoding, B3Propagator } = require('@opentelemetry/propagator-b3');
const { JaegerPropagator } = require('@opentelemetry/propagator-jaeger');
const { AWSXRayPropagator } = require('@opentelemetry/propagator-aws-xray');

const formats = {
  tracecontext: new core.W3CTraceContextPropagator(),
  baggage: new core.W3CBaggagePropagator(),
  b3: new B3Propagator(),
  b3multi: new B3Propagator({ injectEncoding: B3InjectEncoding.MULTI_HEADER }),
  jaeger: new JaegerPropagator(),
  xray: new AWSXRayPropagator(),
};

function inject(request) {
  let ctx = ROOT_CONTEXT;
  if (request.trace) {
    const traceState = request.state.length ? new core.TraceState(request.state.map((pair) => pair.join('=')).join(',')) : undefined;
    const flags = request.sampled ? 1 : 0;
    ctx = trace.setSpanContext(ctx, { traceId: request.trace, spanId: request.span, traceFlags: flags, traceState });
  }
  if (request.baggage.length) {
    const entries = request.baggage.map(([key, value, metadata]) => [
      key,
      metadata ? { value, metadata: baggageEntryMetadataFromString(metadata) } : { value },
    ]);
    ctx = propagation.setBaggage(ctx, propagation.createBaggage(Object.fromEntries(entries)));
  }
  const headers = [];
  formats[request.format].inject(ctx, headers, { set: (carrier, name, value) => carrier.push([name, String(value)]) });
  return { headers };
}

function extract(request) {
  // As in Node's http: names are in lower case, and a header that occurs twice is a list.
  const carrier = {};
  for (const [name, value] of request.headers) {
    const key = name.toLowerCase();
    carrier[key] = key in carrier ? [carrier[key], value].flat() : value;
  }
  const getter = { keys: Object.keys, get: (from, name) => from[name.toLowerCase()] };
  const ctx = formats[request.format].extract(ROOT_CONTEXT, carrier, getter);
  const span = trace.getSpanContext(ctx);
  const found = span && {
    trace: span.traceId,
    span: span.spanId,
    sampled: (span.traceFlags & 1) === 1,
    state: (span.traceState?.serialize() ?? '').split(',').filter(Boolean).map((pair) => pair.split('=')),
  };
  const entries = propagation.getBaggage(ctx)?.getAllEntries() ?? [];
  return { span: found ?? null, baggage: entries.map(([key, { value, metadata }]) => [key, value, metadata?.toString() ?? '']) };
}

console.log(JSON.stringify(`OpenTelemetry-JS ${core.VERSION ?? require('@opentelemetry/core/package.json').version}`));
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  console.log(JSON.stringify({ inject, extract }[request.do](request)));
}

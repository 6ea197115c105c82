// OpenTelemetry-JS as a peer: one question a line on stdin, one answer a line on stdout, both JSON.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

// The packages are beside the folder that this is started in, not beside this file.
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

function inject(question) {
  let ctx = ROOT_CONTEXT;
  if (question.trace) {
    const traceState = question.state.length ? new core.TraceState(question.state.map((pair) => pair.join('=')).join(',')) : undefined;
    const flags = question.sampled ? 1 : 0;
    ctx = trace.setSpanContext(ctx, { traceId: question.trace, spanId: question.span, traceFlags: flags, traceState });
  }
  if (question.baggage.length) {
    const entries = question.baggage.map(([key, value, metadata]) => [
      key,
      metadata ? { value, metadata: baggageEntryMetadataFromString(metadata) } : { value },
    ]);
    ctx = propagation.setBaggage(ctx, propagation.createBaggage(Object.fromEntries(entries)));
  }
  const headers = [];
  formats[question.format].inject(ctx, headers, { set: (carrier, name, value) => carrier.push([name, String(value)]) });
  return { headers };
}

function extract(question) {
  // As Node's http has them: names in lower case, a header that came twice as a list.
  const carrier = {};
  for (const [name, value] of question.headers) {
    const key = name.toLowerCase();
    carrier[key] = key in carrier ? [carrier[key], value].flat() : value;
  }
  const getter = { keys: Object.keys, get: (from, name) => from[name.toLowerCase()] };
  const ctx = formats[question.format].extract(ROOT_CONTEXT, carrier, getter);
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
  const question = JSON.parse(line);
  console.log(JSON.stringify({ inject, extract }[question.do](question)));
}

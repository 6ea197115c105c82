//! What several modules use.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline::trace::{Recorder, Tracer, TracerConfig};
use throughline::{Context, SpanRecord};

/// The spans of a test.
#[derive(Clone, Default)]
pub struct Spans(Arc<Mutex<Vec<SpanRecord>>>);

impl Recorder for Spans {
    fn record(&self, span: SpanRecord) {
        self.0.lock().unwrap().push(span);
    }
}

impl Spans {
    /// A context whose spans are recorded here.
    pub fn context(&self) -> Context {
        Context::background().with_tracer(&Tracer::new(TracerConfig::new(Arc::new(self.clone()))))
    }

    pub fn take(&self) -> Vec<SpanRecord> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

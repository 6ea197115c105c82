//! The medium within one process.

use throughline_transport::Transport;

use crate::conformance::Harness;

struct InProcess(Transport);

impl Harness for InProcess {
    async fn start(configure: fn(Transport) -> Transport) -> Option<Self> {
        Some(InProcess(configure(Transport::in_process())))
    }

    fn server(&self) -> &Transport {
        &self.0
    }

    fn client(&self) -> &Transport {
        &self.0
    }
}

crate::conformance!(InProcess);

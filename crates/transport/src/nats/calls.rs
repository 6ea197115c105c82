//! The calls that wait for their responses, by their ids.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::envelope::{decode_length, decode_offset, decode_status};

/// A body of which no chunk arrives for so long is given up.
pub(super) const STALLED: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Calls {
    table: Mutex<HashMap<u128, Arc<Call>>>,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A message with the head of the response, and the body.
    Response(Option<HeaderMap>, Bytes),
    /// Nothing has subscribed to the subject.
    NoResponders,
    /// The broker does not let this user send to the subject.
    Forbidden,
    /// The connection to the broker was lost.
    Disconnected,
    /// The response is larger than the caller takes.
    TooLarge,
    /// The rest of the response does not arrive.
    Stalled,
    /// The response is not valid.
    Garbage(&'static str),
}

#[derive(Debug)]
struct Call {
    /// The connection that the request was sent over.
    epoch: u64,
    /// The subject that the request was sent to.
    subject: Subject,
    max_body: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    outcome: Option<oneshot::Sender<Outcome>>,
    body_subject: Option<oneshot::Sender<Subject>>,
    chunks: Option<Chunks>,
}

/// A response whose body arrives in chunks.
#[derive(Debug)]
struct Chunks {
    head: Option<HeaderMap>,
    body: Body,
}

/// A body that arrives in chunks.
#[derive(Debug)]
pub(super) struct Body {
    bytes: BytesMut,
    length: usize,
    arrived_at: Instant,
}

impl Body {
    /// `length` is not larger than the limit. Nothing is allocated yet.
    pub(super) fn new(length: usize) -> Self {
        Body { bytes: BytesMut::new(), length, arrived_at: Instant::now() }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.bytes.len() == self.length
    }

    /// Counts the time without a chunk from now.
    pub(super) fn restart_clock(&mut self) {
        self.arrived_at = Instant::now();
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.arrived_at.elapsed() >= STALLED
    }

    /// Adds the chunk that begins at `offset`.
    pub(super) fn add(&mut self, offset: Option<usize>, chunk: &Bytes) -> Result<(), &'static str> {
        if offset != Some(self.bytes.len()) {
            return Err("a chunk of the body is missing");
        }
        if chunk.is_empty() || chunk.len() > self.length - self.bytes.len() {
            return Err("the chunks of the body do not have the announced length");
        }
        if self.bytes.is_empty() {
            self.bytes.reserve(self.length);
        }
        self.bytes.extend_from_slice(chunk);
        self.arrived_at = Instant::now();
        Ok(())
    }

    pub(super) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

impl Calls {
    /// Inserts a call to `subject`. `body_subject` gets the subject for the chunks of its body.
    pub(super) fn insert(
        &self,
        id: u128,
        epoch: u64,
        subject: Subject,
        max_body: usize,
        body_subject: Option<oneshot::Sender<Subject>>,
    ) -> oneshot::Receiver<Outcome> {
        let (sender, outcome) = oneshot::channel();
        let state = Mutex::new(State { outcome: Some(sender), body_subject, chunks: None });
        self.lock().insert(id, Arc::new(Call { epoch, subject, max_body, state }));
        outcome
    }

    pub(super) fn remove(&self, id: u128) {
        let removed = self.lock().remove(&id);
        drop(removed);
    }

    /// Takes a message that has arrived for a call. One for a call that has ended is ignored.
    pub(super) fn route(&self, id: u128, message: Message) {
        let Some(call) = self.lock().get(&id).cloned() else { return };
        let step = call.step(message);
        match step {
            Step::Wait => {}
            Step::SendBody(sender, subject) => drop(sender.send(subject)),
            Step::End(sender, outcome) => {
                self.remove(id);
                drop(sender.send(outcome));
            }
        }
    }

    /// Ends the calls that were sent over an earlier connection than `epoch`, and those whose
    /// response has stalled.
    pub(super) fn sweep(&self, epoch: u64) {
        self.end(|call| match call.epoch < epoch {
            true => Some(Outcome::Disconnected),
            false => call.is_stalled().then_some(Outcome::Stalled),
        });
    }

    /// Ends the calls to a subject that the broker forbids.
    pub(super) fn forbid(&self, subject: &str) {
        self.end(|call| (call.subject.as_str() == subject).then_some(Outcome::Forbidden));
    }

    fn end(&self, outcome_of: impl Fn(&Call) -> Option<Outcome>) {
        let mut ended = Vec::new();
        self.lock().retain(|_, call| {
            let outcome = outcome_of(call);
            let ends = outcome.is_some();
            ended.extend(outcome.map(|outcome| (Arc::clone(call), outcome)));
            !ends
        });
        for (call, outcome) in ended {
            let sender = call.lock().outcome.take();
            if let Some(sender) = sender {
                drop(sender.send(outcome));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Arc<Call>>> {
        // Nothing panics under the lock. Lock order: the table, then a call.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a message means for its call. The senders are used outside the lock: they wake tasks.
enum Step {
    Wait,
    SendBody(oneshot::Sender<Subject>, Subject),
    End(oneshot::Sender<Outcome>, Outcome),
}

impl Call {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stalled(&self) -> bool {
        self.lock().chunks.as_ref().is_some_and(|chunks| chunks.body.is_stalled())
    }

    fn step(&self, message: Message) -> Step {
        let mut state = self.lock();
        if let (Some(100), Some(subject)) =
            (decode_status(message.headers.as_ref()).map(|s| s.as_u16()), &message.reply)
        {
            let sender = state.body_subject.take();
            return sender.map_or(Step::Wait, |sender| Step::SendBody(sender, subject.clone()));
        }
        let Some(outcome) = state.outcome(message, self.max_body) else { return Step::Wait };
        state.outcome.take().map_or(Step::Wait, |sender| Step::End(sender, outcome))
    }
}

impl State {
    /// `None`: more has to arrive.
    fn outcome(&mut self, message: Message, max_body: usize) -> Option<Outcome> {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Some(Outcome::NoResponders);
        }
        let Some(mut chunks) = self.chunks.take() else {
            return match decode_length(message.headers.as_ref()) {
                Err(why) => Some(Outcome::Garbage(why)),
                Ok(None) => Some(Outcome::Response(message.headers, message.payload)),
                Ok(Some(length)) if length > max_body => Some(Outcome::TooLarge),
                Ok(Some(_)) if !message.payload.is_empty() => {
                    Some(Outcome::Garbage("a body and a Http-Body-Length header"))
                }
                Ok(Some(0)) => Some(Outcome::Response(message.headers, message.payload)),
                Ok(Some(length)) => {
                    self.chunks = Some(Chunks { head: message.headers, body: Body::new(length) });
                    None
                }
            };
        };
        if let Err(why) = chunks.body.add(decode_offset(message.headers.as_ref()), &message.payload) {
            return Some(Outcome::Garbage(why));
        }
        if chunks.body.is_complete() {
            return Some(Outcome::Response(chunks.head, chunks.body.finish()));
        }
        self.chunks = Some(chunks);
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn add(length: usize, chunks: &[(Option<usize>, &'static str)]) -> Result<Bytes, &'static str> {
        let mut body = Body::new(length);
        for (offset, chunk) in chunks {
            body.add(*offset, &Bytes::from_static(chunk.as_bytes()))?;
        }
        if body.is_complete() { Ok(body.finish()) } else { Err("not complete") }
    }

    #[test]
    fn chunks_become_a_body_only_in_order_and_with_the_announced_length() {
        assert_eq!(add(5, &[(Some(0), "ab"), (Some(2), "cde")]), Ok(Bytes::from("abcde")));
        assert_eq!(add(5, &[(Some(0), "ab")]), Err("not complete"));
        let missing = Err("a chunk of the body is missing");
        for chunks in [
            &[(Some(0), "ab"), (Some(3), "de")],
            &[(Some(0), "ab"), (Some(0), "ab")],
            &[(Some(0), "ab"), (None, "cde")],
            &[(Some(2), "cde"), (Some(0), "ab")],
        ] {
            assert_eq!(add(5, chunks), missing, "{chunks:?}");
        }
        let other_length = Err("the chunks of the body do not have the announced length");
        assert_eq!(add(3, &[(Some(0), "ab"), (Some(2), "cd")]), other_length);
        assert_eq!(add(3, &[(Some(0), "")]), other_length);
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        assert_eq!(Body::new(usize::MAX).bytes.capacity(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_ends_calls_of_lost_connections_and_stalled_ones() {
        let calls = Calls::default();
        let insert = |id, epoch| calls.insert(id, epoch, "svc.balance".into(), 9, None);
        let (old, current, stalled) = (insert(1, 1), insert(2, 2), insert(3, 2));
        let headers = HeaderMap::from_iter([("Http-Body-Length".parse().unwrap(), "5".parse().unwrap())]);
        let message = Message {
            subject: "a".into(),
            reply: None,
            payload: Bytes::new(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        calls.route(3, message);
        calls.sweep(2);
        assert!(matches!(old.await, Ok(Outcome::Disconnected)));
        assert_eq!(calls.len(), 2);
        tokio::time::advance(STALLED).await;
        calls.sweep(2);
        assert!(matches!(stalled.await, Ok(Outcome::Stalled)));
        assert_eq!(calls.len(), 1);
        drop(current);
    }
}

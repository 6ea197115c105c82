//! Requests whose body arrives in chunks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;

use super::calls::Body;
use crate::Admission;

/// How many bodies arrive at the same time. The broker ends the connection of a client for which
/// more than 64 MiB wait.
const MAX_ARRIVING: usize = 8;

/// The requests, by their reply subjects. A body is asked for when it is its turn.
#[derive(Default)]
pub(super) struct Bodies {
    table: HashMap<Arc<str>, Pending>,
    /// Those that are not asked for yet, first come first.
    waiting: VecDeque<Arc<str>>,
    arriving: usize,
}

struct Pending {
    admission: Admission,
    request: Request<Bytes>,
    body: Body,
    is_asked_for: bool,
}

impl Bodies {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn contains(&self, reply: &str) -> bool {
        self.table.contains_key(reply)
    }

    /// `length` is within the limit.
    pub(super) fn insert(&mut self, reply: Arc<str>, admission: Admission, request: Request<Bytes>, length: usize) {
        self.waiting.push_back(Arc::clone(&reply));
        let pending = Pending { admission, request, body: Body::new(length), is_asked_for: false };
        self.table.insert(reply, pending);
    }

    /// Returns a request to ask the body of, if it is the turn of one.
    pub(super) fn next_to_ask(&mut self) -> Option<Arc<str>> {
        while self.arriving < MAX_ARRIVING {
            let reply = self.waiting.pop_front()?;
            // Those that are removed stay in the queue until here.
            if let Some(pending) = self.table.get_mut(&reply).filter(|pending| !pending.is_asked_for) {
                pending.is_asked_for = true;
                pending.body.restart_clock();
                self.arriving += 1;
                return Some(reply);
            }
        }
        None
    }

    /// Takes a chunk. `None`: more is missing, or there is no such request (any more).
    pub(super) fn add(
        &mut self,
        reply: &str,
        offset: Option<usize>,
        chunk: &Bytes,
    ) -> Option<Result<(Admission, Request<Bytes>), &'static str>> {
        let pending = self.table.get_mut(reply)?;
        let added = match pending.is_asked_for {
            true => pending.body.add(offset, chunk),
            false => Err("nobody has asked for its body yet"),
        };
        if added.is_ok() && !pending.body.is_complete() {
            return None;
        }
        let Pending { admission, request, body, .. } = self.remove(reply)?;
        Some(added.map(|()| (admission, request.map(|_| body.finish()))))
    }

    /// Removes a request whose caller has given up.
    pub(super) fn cancel(&mut self, reply: &str) {
        drop(self.remove(reply));
    }

    pub(super) fn drop_stalled(&mut self) {
        let is_stalled = |pending: &Pending| pending.is_asked_for && pending.body.is_stalled();
        let stalled: Vec<_> =
            self.table.iter().filter(|(_, p)| is_stalled(p)).map(|(reply, _)| Arc::clone(reply)).collect();
        stalled.iter().for_each(|reply| self.cancel(reply));
    }

    fn remove(&mut self, reply: &str) -> Option<Pending> {
        let pending = self.table.remove(reply)?;
        self.arriving -= usize::from(pending.is_asked_for);
        // Requests that were cancelled while they waited do not add up.
        if self.waiting.len() > 2 * self.table.len() + MAX_ARRIVING {
            self.waiting.retain(|waiting| self.table.contains_key(waiting));
        }
        Some(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Limits;
    use crate::inbox::channel;

    fn insert(bodies: &mut Bodies, reply: &str) {
        let (inbox, _) = channel("balance".into(), Limits { in_flight: 1, body: 10 });
        let admission = inbox.admit().expect("nothing is in flight");
        bodies.insert(reply.into(), admission, Request::new(Bytes::new()), 2);
    }

    fn bodies(count: usize) -> Bodies {
        let mut bodies = Bodies::default();
        (0..count).for_each(|number| insert(&mut bodies, &number.to_string()));
        bodies
    }

    fn ask_all(bodies: &mut Bodies) -> Vec<Arc<str>> {
        std::iter::from_fn(|| bodies.next_to_ask()).collect()
    }

    #[test]
    fn only_a_few_bodies_arrive_at_the_same_time() {
        let mut bodies = bodies(MAX_ARRIVING + 2);
        assert_eq!(ask_all(&mut bodies).len(), MAX_ARRIVING);
        assert!(bodies.add("0", Some(0), &Bytes::from("a")).is_none());
        assert!(ask_all(&mut bodies).is_empty());
        let complete = bodies.add("0", Some(1), &Bytes::from("b")).and_then(Result::ok);
        assert_eq!(complete.map(|(_, request)| request.into_body()), Some(Bytes::from("ab")));
        assert_eq!(ask_all(&mut bodies).len(), 1);
        bodies.cancel("1");
        assert_eq!(ask_all(&mut bodies), [Arc::from("9")]);
        // A chunk that is wrong ends its request, and so makes room, too.
        assert!(bodies.add("2", Some(7), &Bytes::from("b")).is_some_and(|result| result.is_err()));
        assert_eq!((bodies.len(), bodies.arriving), (MAX_ARRIVING - 1, MAX_ARRIVING - 1));
    }

    #[test]
    fn a_chunk_that_nobody_asked_for_is_wrong() {
        let mut bodies = bodies(1);
        assert!(bodies.add("0", Some(0), &Bytes::from("ab")).is_some_and(|result| result.is_err()));
        assert!(bodies.add("0", Some(0), &Bytes::from("ab")).is_none());
        assert_eq!((bodies.len(), bodies.next_to_ask()), (0, None));
    }

    #[test]
    fn cancelled_requests_do_not_fill_the_queue() {
        let mut bodies = bodies(MAX_ARRIVING);
        ask_all(&mut bodies);
        for number in 0..1000 {
            let reply = format!("more {number}");
            insert(&mut bodies, &reply);
            bodies.cancel(&reply);
            assert!(bodies.waiting.len() <= 4 * MAX_ARRIVING);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_dropped() {
        let mut bodies = bodies(MAX_ARRIVING + 1);
        ask_all(&mut bodies);
        tokio::time::advance(super::super::calls::STALLED).await;
        bodies.drop_stalled();
        // The one that was not asked for still waits for its turn.
        assert_eq!((bodies.len(), ask_all(&mut bodies).len()), (1, 1));
    }
}

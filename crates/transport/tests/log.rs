//! The log event of a message that is given up.
//!
//! This test has its own process, because `tracing` caches per process which callsites are enabled.

#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use throughline::{Code, Context, Error};
use throughline_transport::{Consumer, Events, Message};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_given_up_is_logged_once_with_the_source_of_its_error() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let events = Events::in_process();
    let cards = events.subscribe(&Context::background(), "card.ordered", "printer").await.unwrap();
    tokio::spawn(cards.serve(Consumer::new(&Context::background()).max_attempts(3), |_, _| async {
        Err(Error::wrap(Code::Unavailable, io::Error::other("no route")))
    }));
    events.publish(&Context::background(), Message::new("card.ordered", "")).await.unwrap();
    events.drain().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 1, "once: {log}");
    for part in ["ERROR", "a message was given up", "card.ordered", "printer", "no route", "delivery_attempt=3"] {
        assert!(lines[0].contains(part), "{part}: {log}");
    }
}

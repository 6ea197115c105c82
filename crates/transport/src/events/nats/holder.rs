//! What a member has taken: it keeps messages alive at the broker, and settles them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::AckKind;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::super::medium::{Receipt, Settlement};
use super::super::message::Message;
use super::shared::Shared;

/// Sends the broker what becomes of messages. Clones belong to one member.
#[derive(Clone)]
pub(super) struct Holder {
    /// Holds at most the messages that the member has taken.
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

enum Command {
    /// Keep the message with this reply subject alive.
    Hold(String),
    Settle(String, AckKind),
}

impl Holder {
    /// `ack_wait`: after this time without a sign of life, the broker delivers a message again.
    pub(super) fn start(shared: Arc<Shared>, ack_wait: Duration) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        tokio::spawn(run(Arc::clone(&shared), received, ack_wait / 3));
        Holder { commands, shared }
    }

    /// Keeps a message alive until its receipt settles it.
    pub(super) fn hold(&self, reply: String) -> HeldReceipt {
        self.shared.busy.send_modify(|busy| busy.unsettled += 1);
        let _ = self.commands.send(Command::Hold(reply.clone()));
        HeldReceipt { reply, holder: self.clone() }
    }
}

pub(super) struct HeldReceipt {
    reply: String,
    holder: Holder,
}

impl HeldReceipt {
    fn send(self, kind: AckKind) {
        // If the runtime has ended, the broker delivers the message again.
        if self.holder.commands.send(Command::Settle(self.reply, kind)).is_err() {
            self.holder.shared.busy.send_modify(|busy| busy.unsettled -= 1);
        }
    }

    /// Gives the message back at once.
    pub(super) fn release(self) {
        self.send(AckKind::Nak(None));
    }
}

impl Receipt for HeldReceipt {
    fn settle(self: Box<Self>, _message: Message, _attempt: u32, settlement: Settlement) {
        self.send(match settlement {
            Settlement::Acknowledge => AckKind::Ack,
            Settlement::GiveUp => AckKind::Term,
            Settlement::Redeliver(Duration::ZERO) => AckKind::Nak(None),
            Settlement::Redeliver(pause) => AckKind::Nak(Some(pause.min(MAX_PAUSE))),
        });
    }
}

/// The broker counts nanoseconds in 64 bits.
const MAX_PAUSE: Duration = Duration::from_secs(30 * 365 * 86_400);

async fn run(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>, period: Duration) {
    let client = &shared.client;
    let mut held = HashSet::new();
    let mut tick = tokio::time::interval(period.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Hold(reply)) => drop(held.insert(reply)),
                Some(Command::Settle(reply, kind)) => {
                    held.remove(&reply);
                    // Without a connection, the client sends it later. If it is lost, the broker
                    // delivers the message again.
                    let _ = client.publish(reply, Bytes::from(kind)).await;
                    shared.busy.send_modify(|busy| busy.unsettled -= 1);
                }
                None => return,
            },
            // Without a connection, signs of life would fill the client's queue.
            _ = tick.tick() => if client.connection_state() == State::Connected {
                for reply in &held {
                    let _ = client.publish(reply.clone(), Bytes::from(AckKind::Progress)).await;
                }
            },
        }
    }
}

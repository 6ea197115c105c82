//! The names of subjects.

use std::fmt::Write as _;

use async_nats::Subject;

/// The queue group of the instances of a service. Tools show it.
pub(super) const QUEUE: &str = "q";

/// The prefix that all subjects of services have.
#[derive(Clone, Debug)]
pub(super) struct Subjects(pub(super) String);

impl Subjects {
    /// Requests to any instance.
    pub(super) fn service(&self, service: &str) -> Subject {
        format!("{}.{service}", self.0).into()
    }

    /// Cancels requests, whichever instance has them.
    pub(super) fn cancel(&self, service: &str) -> Subject {
        format!("{}.{service}.cancel", self.0).into()
    }

    /// What only one instance receives: `request`, `cancel` or `body`.
    pub(super) fn instance(&self, service: &str, instance: &str, what: &str) -> Subject {
        format!("{}.{service}.{instance}.{what}", self.0).into()
    }
}

/// A number that nobody can guess: only who has received a request can respond to it, and only its
/// caller can cancel it.
pub(super) fn random_id() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    u128::from_ne_bytes(bytes)
}

/// A new name for an instance or an inbox.
pub(super) fn random_name() -> String {
    format!("{:032x}", random_id())
}

/// The subject for the responses of one call.
pub(super) fn reply_subject(inbox: &str, id: u128) -> Subject {
    let mut subject = String::with_capacity(inbox.len() + 33);
    subject.push_str(inbox);
    // Writing to a string does not fail.
    let _ = write!(subject, ".{id:032x}");
    subject.into()
}

/// The call that a subject belongs to.
pub(super) fn id_of(subject: &str) -> Option<u128> {
    let id = subject.rsplit('.').next()?;
    (id.len() == 32).then(|| u128::from_str_radix(id, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_subject_has_the_id_of_its_call() {
        for id in [0, 1, u128::MAX, random_id()] {
            assert_eq!(id_of(&reply_subject("_INBOX.a", id)), Some(id));
        }
        for subject in ["", ".", "_INBOX.a.", "_INBOX.a.1", "_INBOX.+0000000000000000000000000000001.x"] {
            assert_eq!(id_of(subject), None, "{subject}");
        }
    }
}

use std::collections::HashSet;
use std::sync::RwLock;

/// Further methods are not remembered. Their spans get their name with the response.
const MAX_METHODS: usize = 1024;

/// The gRPC methods that a handler has responded to.
///
/// Clients can invent names, and handlers do not respond to those.
#[derive(Default)]
pub(super) struct Methods(RwLock<HashSet<String>>);

impl Methods {
    pub(super) fn contains(&self, method: &str) -> bool {
        self.0.read().is_ok_and(|known| known.contains(method))
    }

    pub(super) fn insert(&self, method: String) {
        let Ok(mut known) = self.0.write() else { return };
        if known.len() < MAX_METHODS {
            known.insert(method);
        }
    }
}

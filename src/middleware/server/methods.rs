use std::collections::HashSet;
use std::sync::RwLock;

/// More methods are not remembered; their spans are named when their response has come.
const MAX_METHODS: usize = 1024;

/// The gRPC methods that a handler has answered: clients can make up names, handlers do not.
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

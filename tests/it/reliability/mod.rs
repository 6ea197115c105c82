//! Many requests, long chains and bad networks: R16, R17, R18 and R28 of docs/reliability.md.
//!
//! The tests assert counts and outcomes. Times and sizes that depend on the machine are printed.
//! `cargo test` runs them in a size of some seconds. Environment variables set the full size.

mod chain;
mod network;
mod resets;
mod server;
mod soak;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number in an environment variable, or `default`.
fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |size| size.parse().unwrap())
}

/// The resident memory of this process in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Only Linux shows it.
#[cfg(not(target_os = "linux"))]
fn resident() -> usize {
    0
}

const MEGABYTE: usize = 1 << 20;

/// Counts values that are alive.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn one(&self) -> One {
        self.0.fetch_add(1, Ordering::SeqCst);
        One(Arc::clone(&self.0))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A value that is counted while it is alive.
struct One(Arc<AtomicUsize>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

//! The thread that reloads the file when its directory has changed.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::directories::directories;
use super::error::ConfigError;

/// One change of a file is several events. It is read when there were none for this time.
const QUIET: Duration = Duration::from_millis(50);
/// A directory that changes all the time does not delay the file for longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often watching is tried: a directory can go between finding and watching it.
const ATTEMPTS: usize = 3;

/// The watched directories, and the queue of their changes.
pub(super) struct FileWatcher {
    path: PathBuf,
    watched: BTreeSet<PathBuf>,
    native: RecommendedWatcher,
    sender: SyncSender<()>,
    changes: Receiver<()>,
}

/// Whether the thread goes on.
pub(super) enum Next {
    Wait,
    Stop,
}

impl FileWatcher {
    /// Watches the directories of `path`, which is absolute. Changes from now on are queued.
    pub(super) fn new(path: PathBuf) -> Result<Self, ConfigError> {
        // One place is enough: the change that is in it has not been read yet.
        let (sender, changes) = sync_channel(1);
        let queue = sender.clone();
        let native = notify::recommended_watcher(move |event| {
            if is_change(&event) {
                let _ = queue.try_send(());
            }
        });
        let native = native.map_err(|e| ConfigError::in_file(&path, &format!("cannot watch it: {e}")))?;
        let mut watcher = FileWatcher { path, watched: BTreeSet::new(), native, sender, changes };
        watcher.watch_directories()?;
        Ok(watcher)
    }

    /// A sender whose messages make the thread call `reload`.
    pub(super) fn waker(&self) -> SyncSender<()> {
        self.sender.clone()
    }

    /// Starts the thread. It calls `reload` after each change, until that says to stop.
    ///
    /// `reload` gets the error if not all directories can be watched.
    pub(super) fn spawn(
        mut self,
        mut reload: impl FnMut(Result<(), ConfigError>) -> Next + Send + 'static,
    ) -> io::Result<()> {
        let run = move || {
            while self.changes.recv().is_ok() {
                self.wait_until_quiet();
                // Before the file is read, so that a later change of a link is an event.
                let watched = self.watch_directories();
                if let Next::Stop = reload(watched) {
                    break;
                }
            }
        };
        thread::Builder::new().name("throughline-config".to_owned()).spawn(run)?;
        Ok(())
    }

    fn wait_until_quiet(&self) {
        let begun = Instant::now();
        while begun.elapsed() < LONGEST_WAIT {
            if let Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) = self.changes.recv_timeout(QUIET) {
                return;
            }
        }
    }

    /// Watches the directories that lead to the file now, and no others.
    fn watch_directories(&mut self) -> Result<(), ConfigError> {
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            let wanted = directories(&self.path);
            for old in self.watched.difference(&wanted) {
                // It fails when the directory is gone: then nothing watches it.
                let _ = self.native.unwatch(old);
            }
            self.watched = wanted;
            // Also those that are watched already: one may be another directory of the same name.
            let failed = self.watched.iter().find_map(|directory| {
                let watched = self.native.watch(directory, RecursiveMode::NonRecursive);
                watched.err().map(|e| format!("cannot watch the directory {}: {e}", directory.display()))
            });
            let Some(message) = failed else { return Ok(()) };
            result = Err(ConfigError::in_file(&self.path, &message));
        }
        result
    }
}

/// Whether the file may be another after the event. Reading it is an event, too.
fn is_change(event: &notify::Result<Event>) -> bool {
    match event {
        Ok(Event { kind: EventKind::Access(access), .. }) => {
            matches!(access, AccessKind::Close(AccessMode::Write))
        }
        // After an error, events may be missing.
        Ok(_) | Err(_) => true,
    }
}

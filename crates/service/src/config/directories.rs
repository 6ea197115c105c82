//! The directories in which a change can lead to another file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The most symbolic links on the way, as in the Linux kernel.
const MAX_LINKS: usize = 40;

/// Returns the directory of the file, and that of each symbolic link on the way to it.
///
/// Kubernetes mounts `balance.toml` as a link to `..data/balance.toml`, and `..data` as a link to a
/// directory. It replaces the link `..data`. If a directory is missing, the nearest one above it is
/// returned.
pub(super) fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        let Some((directory, next)) = first_link(&path) else { break };
        found.insert(existing(&directory));
        path = next;
    }
    found.insert(existing(path.parent().unwrap_or(&path)));
    found
}

/// The directory of the first link in `path`, and the path with the link's target in its place.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut components = path.components();
    let mut prefix = PathBuf::new();
    while let Some(component) = components.next() {
        prefix.push(component);
        if let Ok(target) = fs::read_link(&prefix) {
            let directory = prefix.parent()?.to_owned();
            let next = directory.join(target).join(components.as_path());
            return Some((directory, next));
        }
    }
    None
}

/// One name for each directory: a second watch of one directory would replace the first.
fn existing(directory: &Path) -> PathBuf {
    let found = directory.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok());
    found.unwrap_or_else(|| directory.to_owned())
}

//! Checks the layers of docs/architecture.md: no `use` path and no manifest points upward.
//!
//! Within a folder, it checks that the files do not import each other in a circle.

mod circles;

use std::fs;
use std::path::{Path, PathBuf};

/// A source folder, and the paths that its code must not name.
struct Layer {
    folder: &'static str,
    may_not_name: &'static [&'static str],
}

const LAYERS: &[Layer] = &[
    Layer { folder: "crates/core/src/context", may_not_name: &["crate::trace", "crate::propagation", "http::"] },
    Layer { folder: "crates/core/src/trace", may_not_name: &["crate::propagation", "http::", "tracing::"] },
    Layer { folder: "crates/core/src", may_not_name: &["opentelemetry", "tracing::", "throughline::"] },
    Layer {
        folder: "src/error",
        may_not_name: &[
            "crate::middleware",
            "crate::telemetry",
            "crate::otel",
            "opentelemetry",
            "throughline_core::trace",
        ],
    },
    Layer { folder: "src/middleware", may_not_name: &["crate::telemetry", "crate::otel", "opentelemetry"] },
    Layer { folder: "src/telemetry", may_not_name: &["crate::middleware", "crate::error", "reqwest"] },
    Layer {
        folder: "crates/transport/src",
        may_not_name: &["throughline_view", "opentelemetry", "throughline::telemetry"],
    },
    Layer {
        folder: "crates/service/src",
        may_not_name: &["throughline_view", "opentelemetry", "throughline::telemetry"],
    },
    Layer { folder: "crates/view/src", may_not_name: &["throughline::", "throughline_transport", "opentelemetry"] },
];

/// Each package, and the workspace packages that it may depend on. Dev-dependencies do not count.
const PACKAGES: &[(&str, &[&str])] = &[
    ("crates/core", &[]),
    (".", &["throughline-core"]),
    ("crates/transport", &["throughline-core", "throughline"]),
    ("crates/service", &["throughline-core", "throughline", "throughline-transport"]),
    ("crates/view", &["throughline-core"]),
];

const WORKSPACE: &[&str] =
    &["throughline", "throughline-core", "throughline-transport", "throughline-service", "throughline-view", "bank"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

/// Whether a path in `code` begins with `path`. The tail of a longer name does not count.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let behind = code[at + path.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            && (path.ends_with(':')
                || !behind.is_some_and(|c| c.is_alphanumeric() || c == '_')
                || path == "opentelemetry")
    })
}

fn upward_arrows(source: &str, forbidden: &[&str]) -> Vec<String> {
    let mut arrows = Vec::new();
    for (number, line) in source.lines().enumerate() {
        for path in forbidden {
            if names(code(line), path) {
                arrows.push(format!("{}: {}", number + 1, line.trim()));
            }
        }
    }
    arrows
}

#[test]
fn no_use_path_points_upward() {
    let mut wrong = Vec::new();
    for layer in LAYERS {
        for file in rust_files(&root().join(layer.folder)) {
            let source = fs::read_to_string(&file).unwrap();
            for arrow in upward_arrows(&source, layer.may_not_name) {
                wrong.push(format!("{}:{arrow}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "upward arrows:\n{}", wrong.join("\n"));
}

#[test]
fn upward_arrows_finds_paths_in_code_only() {
    assert_eq!(upward_arrows("use crate::trace::Span;", &["crate::trace"]).len(), 1);
    assert_eq!(upward_arrows("let x = crate::trace::Span::new();", &["crate::trace"]).len(), 1);
    assert_eq!(upward_arrows("use opentelemetry_proto::tonic;", &["opentelemetry"]).len(), 1);
    assert_eq!(upward_arrows("// see crate::trace", &["crate::trace"]).len(), 0);
    assert_eq!(upward_arrows("use crate::traces;", &["crate::trace"]).len(), 0);
    assert_eq!(upward_arrows("use my_crate::trace;", &["crate::trace"]).len(), 0);
}

#[test]
fn files_of_a_folder_import_each_other_in_no_circle() {
    let crates = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for package in crates.chain([root()]) {
        let src = package.join("src");
        let sources = rust_files(&src).into_iter().map(|file| {
            let content = fs::read_to_string(&file).unwrap();
            (file.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/"), content)
        });
        let circles = circles::circles(&sources.collect::<Vec<_>>());
        found.extend(circles.into_iter().map(|circle| format!("{}/{circle}", src.display())));
    }
    assert!(found.is_empty(), "files import each other in a circle:\n{}", found.join("\n"));
}

#[test]
fn no_manifest_points_upward() {
    for (package, allowed) in PACKAGES {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        let mut section = "";
        for line in manifest.lines() {
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_end_matches(']');
            }
            if section != "dependencies" {
                continue;
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or("");
            if WORKSPACE.contains(&name) {
                assert!(allowed.contains(&name), "{package} may not depend on {name}");
            }
        }
    }
}

/// The keys in a section of a package's manifest.
fn manifest_names(package: &str, section: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
    let lines = manifest.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split(['.', ' ', '=', '#']).next().filter(|name| !name.is_empty()));
    names.map(str::to_owned).collect()
}

#[test]
fn every_feature_and_every_dependency_is_used() {
    let mut idle = Vec::new();
    for (package, _) in PACKAGES {
        let read = |folder: PathBuf| rust_files(&folder).into_iter().map(|file| fs::read_to_string(file).unwrap());
        let examples = Some(root().join(package).join("examples")).filter(|folder| folder.is_dir());
        let sources: String =
            read(root().join(package).join("src")).chain(examples.into_iter().flat_map(read)).collect();
        for feature in manifest_names(package, "features").into_iter().filter(|name| name != "default") {
            if !sources.contains(&format!("feature = \"{feature}\"")) {
                idle.push(format!("{package}: the feature {feature}"));
            }
        }
        for dependency in manifest_names(package, "dependencies") {
            if !sources.lines().any(|line| names(code(line), &format!("{}::", dependency.replace('-', "_")))) {
                idle.push(format!("{package}: {dependency}"));
            }
        }
    }
    assert!(idle.is_empty(), "{idle:?}");
}

/// `unsafe` is allowed only in `context/tree*` of the core.
#[test]
fn unsafe_code_stays_in_the_tree() {
    let mut wrong = Vec::new();
    for folder in
        ["src", "crates/core/src", "crates/transport/src", "crates/service/src", "crates/view/src", "examples/bank/src"]
    {
        for file in rust_files(&root().join(folder)) {
            if file.to_string_lossy().contains("crates/core/src/context/tree") {
                continue;
            }
            let source = fs::read_to_string(&file).unwrap();
            for (number, line) in source.lines().enumerate() {
                let code = code(line);
                let word = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe");
                if word || code.contains("allow(unsafe_code)") {
                    wrong.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe outside the tree:\n{}", wrong.join("\n"));
}

/// Deadlines use the monotonic clock only.
///
/// The wall clock dates spans, once per process, and the ends of SQL statements. It converts the
/// dates of `Retry-After`, and dates the start of listeners for the tools of NATS.
#[test]
fn the_wall_clock_is_read_in_five_files() {
    let mut readers = Vec::new();
    for folder in ["src", "crates/core/src", "crates/transport/src", "crates/service/src", "crates/view/src"] {
        for file in rust_files(&root().join(folder)) {
            let source = fs::read_to_string(&file).unwrap();
            let reads = |line: &str| names(code(line), "SystemTime::now") || code(line).contains("UNIX_EPOCH.elapsed");
            if source.lines().any(reads) {
                readers.push(file.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    let expected = [
        "src/error/problem.rs",
        "src/telemetry/otlp/http.rs",
        "crates/core/src/trace/clock.rs",
        "crates/transport/src/nats/micro.rs",
        "crates/service/src/sqlite/spans.rs",
    ];
    assert_eq!(readers, expected);
}

//! Finds circles of imports among the files of one folder.
//!
//! A file imports what its code names by a path from `crate`, `super` or `self`. The paths are
//! compared folder by folder:
//! - A file `a.rs` and its folder `a/` are one module. What is nested in them counts to `a`.
//! - A path to the folder itself, that is to its `mod.rs`, is no import of a file.
//! - Modules that only tests have (`#[cfg(test)]`) do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The names of a module or an item, from the root of its crate.
type FullPath = Vec<String>;

/// The files of one folder, each with those that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The shortest circle of each folder, as `folder: a → b → a`.
///
/// `sources`: path below `src/`, and content, of each file of a crate.
pub(super) fn circles(sources: &[(String, String)]) -> Vec<String> {
    let mut found = Found::default();
    for (file, content) in sources {
        let tokens = content.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
        read(tokens, &module_of(file), &mut found);
    }
    let is_for_tests = |path: &[String]| found.test_modules.iter().any(|module| path.starts_with(module));
    let modules = sources.iter().map(|(file, _)| module_of(file)).filter(|module| !is_for_tests(module));
    let modules: BTreeSet<FullPath> = modules.flat_map(prefixes).collect();
    let mut folders: BTreeMap<&[String], Imports> = BTreeMap::new();
    for (from, to) in found.paths.iter().filter(|(from, _)| !is_for_tests(from)) {
        let shared = from.iter().zip(to).take_while(|(from, to)| from == to).count();
        if shared < from.len() && shared < to.len() && modules.contains(&to[..=shared]) {
            let imports = folders.entry(&from[..shared]).or_default();
            imports.entry(from[shared].clone()).or_default().insert(to[shared].clone());
        }
    }
    let circles = folders.iter().filter_map(|(folder, imports)| Some((folder, shortest_circle(imports)?)));
    circles.map(|(folder, circle)| format!("{}: {}", folder.join("/"), circle.join(" → "))).collect()
}

fn module_of(file: &str) -> FullPath {
    let names = file.trim_end_matches(".rs").split('/');
    names.filter(|name| !["mod", "lib", "main"].contains(name)).map(str::to_owned).collect()
}

fn prefixes(path: FullPath) -> Vec<FullPath> {
    (1..=path.len()).map(|end| path[..end].to_vec()).collect()
}

/// What the files of a crate name.
#[derive(Default)]
struct Found {
    /// Each path in the code, after the module that contains it.
    paths: Vec<(FullPath, FullPath)>,
    test_modules: Vec<FullPath>,
}

/// Adds what `tokens` name. They stand in `module`.
fn read(tokens: TokenStream, module: &FullPath, found: &mut Found) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut rest = &tokens[..];
    let mut is_for_tests = false;
    while let [first, behind @ ..] = rest {
        rest = behind;
        match (first, behind) {
            (TokenTree::Punct(mark), [TokenTree::Group(attribute), behind @ ..]) if mark.as_char() == '#' => {
                is_for_tests |= is_cfg_test(attribute.stream());
                rest = behind;
                continue;
            }
            (TokenTree::Ident(word), [TokenTree::Ident(name), behind @ ..]) if word == "mod" => {
                let inner = join(module, &name.to_string());
                if is_for_tests {
                    found.test_modules.push(inner);
                } else if let [TokenTree::Group(body), ..] = behind {
                    read(body.stream(), &inner, found);
                }
                rest = behind.get(1..).unwrap_or_default();
            }
            (TokenTree::Ident(word), _) if is_path_sep(behind) => {
                let start = match word.to_string().as_str() {
                    "crate" => Some(Vec::new()),
                    "self" => Some(module.clone()),
                    "super" => Some(module[..module.len().saturating_sub(1)].to_vec()),
                    _ => None,
                };
                match start {
                    Some(start) => rest = follow(start, behind, module, found),
                    // A path from elsewhere, to its end: a `super` in it is not a start.
                    None => rest = &behind[2..],
                }
            }
            // The visibility of a module.
            (TokenTree::Ident(word), _) if word == "pub" => continue,
            (TokenTree::Group(group), _) => {
                read(group.stream(), module, found);
                if group.delimiter() == Delimiter::Parenthesis {
                    continue;
                }
            }
            _ => {}
        }
        is_for_tests = false;
    }
}

/// Follows a path that has led to `path`. Returns the tokens behind the path.
fn follow<'a>(
    mut path: FullPath,
    mut tokens: &'a [TokenTree],
    module: &FullPath,
    found: &mut Found,
) -> &'a [TokenTree] {
    while is_path_sep(tokens) {
        tokens = &tokens[2..];
        match tokens {
            [TokenTree::Ident(name), behind @ ..] => {
                step(&mut path, &name.to_string());
                tokens = behind;
            }
            [TokenTree::Group(branches), behind @ ..] => {
                let branches: Vec<TokenTree> = branches.stream().into_iter().collect();
                for branch in branches.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',')) {
                    let mut path = path.clone();
                    if let [TokenTree::Ident(name), behind @ ..] = branch {
                        step(&mut path, &name.to_string());
                        follow(path, behind, module, found);
                    }
                }
                return behind;
            }
            _ => break,
        }
    }
    found.paths.push((module.clone(), path));
    tokens
}

fn step(path: &mut FullPath, name: &str) {
    match name {
        "self" => {}
        "super" => drop(path.pop()),
        _ => path.push(name.to_owned()),
    }
}

fn join(path: &FullPath, name: &str) -> FullPath {
    [path, &[name.to_owned()][..]].concat()
}

fn is_path_sep(tokens: &[TokenTree]) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':');
    matches!(tokens, [first, second, _, ..] if is_colon(first) && is_colon(second))
}

/// Whether the attribute is `cfg(test)`, or `cfg(all(…))` with `test` in it.
fn is_cfg_test(attribute: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = attribute.into_iter().collect();
    let [TokenTree::Ident(name), TokenTree::Group(condition)] = &tokens[..] else { return false };
    name == "cfg" && (condition.to_string() == "(test)" || needs_test(condition.stream()))
}

fn needs_test(condition: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = condition.into_iter().collect();
    let [TokenTree::Ident(name), TokenTree::Group(all)] = &tokens[..] else { return false };
    name == "all" && all.stream().into_iter().any(|token| matches!(token, TokenTree::Ident(word) if word == "test"))
}

fn shortest_circle(imports: &Imports) -> Option<Vec<&str>> {
    imports.keys().filter_map(|start| circle_through(start, imports)).min_by_key(Vec::len)
}

/// The shortest circle that begins and ends at `start`.
fn circle_through<'a>(start: &'a str, imports: &'a Imports) -> Option<Vec<&'a str>> {
    let mut importer_of: BTreeMap<&str, &str> = BTreeMap::new();
    let mut pending = VecDeque::from([start]);
    while let Some(file) = pending.pop_front() {
        for next in imports.get(file).into_iter().flatten() {
            if !importer_of.contains_key(next.as_str()) {
                importer_of.insert(next, file);
                pending.push_back(next);
            }
        }
    }
    let mut circle = vec![start, *importer_of.get(start)?];
    while let Some(last) = circle.last().copied().filter(|last| *last != start) {
        circle.push(importer_of[last]);
    }
    circle.reverse();
    Some(circle)
}

/// [`circles`] of files that exist only here.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = files.iter().map(|(file, content)| ((*file).to_owned(), (*content).to_owned())).collect();
    circles(&files)
}

#[test]
fn a_circle_of_two_files_is_named() {
    let circles = circles_of(&[
        ("tree/mod.rs", "mod list; mod node;"),
        ("tree/list.rs", "use super::node::{CancelNode, Ref};"),
        ("tree/node.rs", "fn free() { super::list::List::new() }"),
    ]);
    assert_eq!(circles, ["tree: list → node → list"]);
}

#[test]
fn the_shortest_circle_of_each_folder_is_named() {
    let circles = circles_of(&[
        ("a.rs", "use crate::{b::B, d};"),
        ("b.rs", "use crate::c::*;"),
        ("c.rs", "pub(crate) use super::a::A;"),
        ("d.rs", "use crate::e;"),
        ("e.rs", "use crate::d::{self};"),
        ("f/g.rs", "use super::h;"),
        ("f/h.rs", "use crate::f::{i::{J, K}};"),
        ("f/i.rs", "use super::g as other;"),
    ]);
    assert_eq!(circles, [": d → e → d", "f: g → h → i → g"]);
}

#[test]
fn nested_modules_count_to_the_one_beside_the_file() {
    let circles = circles_of(&[
        ("timer.rs", "mod thread; mod system { use super::super::clock::now; }"),
        ("clock.rs", "use crate::hook::threads::deep::Run;"),
        ("hook/threads/deep.rs", "use super::super::super::timer::Alarm;"),
    ]);
    assert_eq!(circles, [": clock → hook → timer → clock"]);
}

#[test]
fn a_file_and_its_folder_are_one_module_and_the_parent_does_not_count() {
    let circles = circles_of(&[
        ("timer.rs", "mod thread; use self::thread::start; use crate::timer::thread::Thread;"),
        ("timer/thread.rs", "use super::{Alarm, take_due}; use crate::timer::Shard;"),
        ("lib.rs", "mod timer; use crate::timer::Alarm;"),
        ("tree/mod.rs", "mod node; pub(super) use self::node::Ref; use super::timer::Alarm;"),
        ("tree/node.rs", "use super::Ref; pub(in crate::tree) struct Node;"),
    ]);
    assert_eq!(circles, [""; 0]);
}

#[test]
fn test_modules_and_paths_outside_code_do_not_count() {
    let circles = circles_of(&[
        ("a.rs", "use crate::b::B; #[cfg(test)] mod tests { use crate::c::C; }"),
        ("b.rs", "//! See crate::a.\n/* super::a::A */ const TEXT: &str = \"crate::a::A\"; use other::crate_a::a;"),
        ("c.rs", "use crate::a::A;"),
        ("lib.rs", "#[cfg(all(test, loom))] pub(crate) mod models; mod a; mod b; mod c;"),
        ("models.rs", "use crate::d::D;"),
        ("d.rs", "use crate::models::Model;"),
    ]);
    assert_eq!(circles, [""; 0]);
    let used_without_tests = circles_of(&[
        ("a.rs", "use crate::b::B; #[cfg(not(test))] mod real { use crate::c::C; }"),
        ("c.rs", "use crate::a::A;"),
    ]);
    assert_eq!(used_without_tests, [": a → c → a"]);
}

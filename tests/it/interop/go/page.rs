//! docs/go.md shows the code that these tests run.

use std::fs;

use super::super::root;

#[test]
fn the_go_code_of_the_page_is_the_code_that_the_tests_run() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (page, code) = (read("docs/go.md"), read("tests/interop/go/throughline.go"));
    let blocks: Vec<_> = page.split("```go\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.join("\n"), code);
}

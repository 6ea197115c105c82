//! The names of streams and durable consumers.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The characters that a name at the broker must not have, and those that this module uses itself.
const ESCAPED: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'.')
    .add(b'*')
    .add(b'>')
    .add(b'/')
    .add(b'\\')
    .add(b':')
    .add(b'|')
    .add(b'<')
    .add(b'?')
    .add(b'"')
    .add(b'%')
    .add(b'+')
    .add(b'@');

/// Returns the name of the stream of a subject, and the subjects that it takes.
pub(super) fn stream(subject: &str) -> (String, Vec<String>) {
    let first = subject.split('.').next().unwrap_or(subject);
    (escape(first), vec![first.to_owned(), format!("{first}.>")])
}

/// Returns the name of the durable consumer of a group. Different groups have different names.
pub(super) fn consumer(subject: &str, group: &str) -> String {
    let subject: Vec<_> = subject.split('.').map(escape).collect();
    format!("{}@{}", escape(group), subject.join("+"))
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, &ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_and_different_for_different_groups() {
        assert_eq!(stream("card.ordered").0, "card");
        assert_eq!(stream("card.ordered").1, ["card", "card.>"]);
        assert_eq!(consumer("card.ordered", "printer"), "printer@card+ordered");
        let names = [consumer("a.b", "g"), consumer("a+b", "g"), consumer("b", "g@a"), consumer("a", "g.x/y")];
        assert_eq!(names, ["g@a+b", "g@a%2Bb", "g%40a@b", "g%2Ex%2Fy@a"]);
    }
}

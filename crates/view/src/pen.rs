//! Chooses characters and colours.

/// The colours and characters that a drawing may use.
pub(crate) struct Pen {
    pub(crate) color: bool,
    pub(crate) unicode: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
    Yellow,
    Cyan,
}

impl Pen {
    pub(crate) fn paint(&self, text: &str, style: Style) -> String {
        if !self.color || text.trim().is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Red => 31,
            Style::Yellow => 33,
            Style::Cyan => 36,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    pub(crate) fn ascii(&self, text: String) -> String {
        if self.unicode { text } else { text.replace('µ', "u") }
    }
}

use std::io::IsTerminal;

/// How a waterfall is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The number of columns. The minimum is 60.
    pub width: usize,
    /// Whether the terminal shows colours (ANSI escape sequences).
    pub color: bool,
    /// Whether the terminal shows Unicode characters. Otherwise, only ASCII is used.
    pub unicode: bool,
}

impl Options {
    /// 120 columns and Unicode, without colours.
    pub const PLAIN: Options = Options { width: 120, color: false, unicode: true };

    /// The options for stdout.
    ///
    /// - Width: `COLUMNS`, or else the terminal's width, or else that of [`PLAIN`](Self::PLAIN).
    /// - Colours: only for a terminal, not if `NO_COLOR` is set (<https://no-color.org>), and not
    ///   if `TERM` is `dumb`.
    pub fn stdout() -> Options {
        let is_terminal = std::io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let own = terminal_size::terminal_size().filter(|_| is_terminal).map(|(width, _)| usize::from(width.0));
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Options {
            width: columns.or(own).unwrap_or(Options::PLAIN.width),
            color: is_terminal && !is_dumb && !is_set("NO_COLOR"),
            unicode: true,
        }
    }
}

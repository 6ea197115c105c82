//! The parts of an SQL text that spans show.
//!
//! Tokens are enough for it. A parser such as `sqlparser` makes a tree of each text, and fails on
//! syntax that it does not know.
//!
//! Linear in the length of the text, without recursion. The text comes from the service's own code,
//! and SQLite has accepted it.

/// The most bytes of a summary: the limit of the conventions.
const MAX_SUMMARY: usize = 255;
/// The most bytes of a recorded text.
const MAX_TEXT: usize = 4096;

/// What a statement does, in a few words that are the same for all parameters.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Summary {
    /// The operations with their tables, such as `SELECT accounts`.
    pub(super) text: String,
    /// The operation of the statement itself, not of a subquery.
    pub(super) operation: String,
    /// The table, if there is exactly one.
    pub(super) collection: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    /// A quoted name, without its quotes.
    Name(&'a str),
    /// A string, a blob or a number.
    Literal,
    Parameter,
    Symbol(u8),
}

impl<'a> Token<'a> {
    fn is(self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn is_any(self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }

    fn name(self) -> Option<&'a str> {
        match self {
            Token::Word(name) | Token::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// The tokens of a text. `at` is the end of the last one. Blanks and comments are left out.
struct Tokens<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn new(sql: &'a str) -> Self {
        Tokens { sql, at: 0 }
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.sql.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Moves behind the next `end`, or to the end of the text.
    fn skip_behind(&mut self, end: &str) {
        self.at = self.sql[self.at..].find(end).map_or(self.sql.len(), |found| self.at + found + end.len());
    }

    /// Moves behind a closing quote. Two of them in a row are one character of the text.
    fn skip_quoted(&mut self, quote: &str) {
        self.at += 1;
        loop {
            self.skip_behind(quote);
            if !self.sql[self.at..].starts_with(quote) {
                return;
            }
            self.at += quote.len();
        }
    }

    fn skip_while(&mut self, is_part: impl Fn(char) -> bool) {
        let rest = &self.sql[self.at..];
        self.at += rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            self.skip_while(|c| c.is_ascii_whitespace() || c == '\u{feff}');
            match (self.byte(0), self.byte(1)) {
                (b'-', b'-') => self.skip_behind("\n"),
                (b'/', b'*') => {
                    self.at += 2;
                    self.skip_behind("*/");
                }
                _ => return,
            }
        }
    }
}

fn is_part_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks_and_comments();
        let start = self.at;
        let first = self.sql[start..].chars().next()?;
        let inside = |tokens: &Self| {
            let quoted = &tokens.sql[start + 1..tokens.at];
            Token::Name(quoted.get(..quoted.len().saturating_sub(1)).unwrap_or(quoted))
        };
        Some(match first {
            '\'' => {
                self.skip_quoted("'");
                Token::Literal
            }
            'x' | 'X' if self.byte(1) == b'\'' => {
                self.at += 1;
                self.skip_quoted("'");
                Token::Literal
            }
            '"' | '`' => {
                self.skip_quoted(if first == '"' { "\"" } else { "`" });
                inside(self)
            }
            '[' => {
                self.skip_behind("]");
                inside(self)
            }
            '?' | ':' | '@' | '$' | '#' => {
                self.at += 1;
                self.skip_while(|c| is_part_of_name(c) || c == ':');
                Token::Parameter
            }
            '0'..='9' => {
                self.skip_while(|c| is_part_of_name(c) || c == '.');
                Token::Literal
            }
            '.' if self.byte(1).is_ascii_digit() => {
                self.at += 1;
                self.skip_while(is_part_of_name);
                Token::Literal
            }
            c if is_part_of_name(c) => {
                self.skip_while(is_part_of_name);
                Token::Word(&self.sql[start..self.at])
            }
            c => {
                self.at += c.len_utf8();
                Token::Symbol(c as u8)
            }
        })
    }
}

/// The text with `?` for each literal, without comments, and cut off at 4 KiB.
pub(super) fn without_literals(sql: &str) -> String {
    let mut text = String::new();
    let mut tokens = Tokens::new(sql);
    let mut end = 0;
    while let Some(token) = tokens.next() {
        let with_gap = &sql[end..tokens.at];
        let has_gap = end > 0 && with_gap.starts_with(|c: char| c.is_ascii_whitespace() || matches!(c, '-' | '/'));
        end = tokens.at;
        let token = match token {
            Token::Literal => "?",
            _ => {
                let mut gap = Tokens { sql: with_gap, at: 0 };
                gap.skip_blanks_and_comments();
                &with_gap[gap.at..]
            }
        };
        if text.len() + token.len() + 1 > MAX_TEXT {
            break;
        }
        if has_gap && token != with_gap {
            text.push(' ');
        }
        text.push_str(token);
    }
    text
}

/// Summarizes a statement.
pub(super) fn summarize(sql: &str) -> Summary {
    let mut parser = Parser::default();
    let mut before = Token::Symbol(b';');
    let mut tokens = Tokens::new(sql).peekable();
    while let Some(token) = tokens.next() {
        let is_schema = matches!(parser.expects, Expects::Table | Expects::Object) && token.name().is_some();
        if is_schema && tokens.next_if_eq(&Token::Symbol(b'.')).is_some() {
            // `main.accounts`
            continue;
        }
        if !parser.read(before, token) {
            break;
        }
        before = token;
    }
    parser.finish()
}

/// What the next name is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Expects {
    #[default]
    Nothing,
    Table,
    /// The name of a common table expression. It is not a table.
    Common,
    /// What follows `CREATE`, `DROP` or `ALTER`: the kind of object.
    Kind,
    /// The name of the object. It is the last part of the summary.
    Object,
}

#[derive(Default)]
struct Parser<'a> {
    summary: Summary,
    /// Each table, once.
    tables: Vec<String>,
    common: Vec<&'a str>,
    expects: Expects,
    depth: usize,
    /// The levels of brackets whose `FROM` clause is open.
    from: Vec<usize>,
    is_full: bool,
}

impl<'a> Parser<'a> {
    /// Returns `false` if the rest does not change the summary.
    fn read(&mut self, before: Token<'a>, token: Token<'a>) -> bool {
        match token {
            Token::Symbol(b'(') => self.depth += 1,
            Token::Symbol(b')') => {
                self.depth = self.depth.saturating_sub(1);
                while self.from.last().is_some_and(|&from| from > self.depth) {
                    self.from.pop();
                }
            }
            Token::Symbol(b',') => self.read_comma(),
            Token::Symbol(_) | Token::Literal | Token::Parameter => self.expects = Expects::Nothing,
            Token::Word(_) | Token::Name(_) => return self.read_name(before, token),
        }
        !self.is_full
    }

    fn read_comma(&mut self) {
        if self.from.last() == Some(&self.depth) {
            self.expects = Expects::Table;
        } else if self.summary.operation.is_empty() && self.depth == 0 && !self.common.is_empty() {
            self.expects = Expects::Common;
        }
    }

    fn read_name(&mut self, before: Token<'a>, token: Token<'a>) -> bool {
        let Some(name) = token.name() else { return true };
        match self.expects {
            Expects::Common if token.is("RECURSIVE") => {}
            Expects::Common => {
                self.common.push(name);
                self.expects = Expects::Nothing;
            }
            Expects::Kind if token.is_any(&["TEMP", "TEMPORARY", "UNIQUE", "VIRTUAL"]) => {}
            Expects::Kind => {
                self.push(name);
                self.expects = Expects::Object;
            }
            Expects::Object if token.is_any(&["IF", "NOT", "EXISTS"]) => {}
            Expects::Object => {
                self.push(name);
                self.tables.push(name.to_owned());
                return false;
            }
            Expects::Table if token.is("OR") => {}
            // `UPDATE OR IGNORE accounts`
            Expects::Table if before.is("OR") => {}
            Expects::Table if !self.is_operation(before, token) => {
                self.expects = Expects::Nothing;
                if !self.common.iter().any(|common| common.eq_ignore_ascii_case(name)) {
                    self.push(name);
                    if !self.tables.iter().any(|table| table == name) {
                        self.tables.push(name.to_owned());
                    }
                }
            }
            Expects::Table | Expects::Nothing => return self.read_keyword(before, token, name),
        }
        !self.is_full
    }

    fn is_operation(&self, before: Token<'a>, token: Token<'a>) -> bool {
        if token.is("SELECT") {
            return true;
        }
        // Not `ON CONFLICT DO UPDATE`, `INSERT OR REPLACE` and the function `replace`.
        token.is_any(&["INSERT", "UPDATE", "DELETE"]) && !before.is("DO")
            || token.is("REPLACE") && before == Token::Symbol(b';')
    }

    fn read_keyword(&mut self, before: Token<'a>, token: Token<'a>, name: &str) -> bool {
        if !matches!(token, Token::Word(_)) {
            return true;
        }
        let is_first = self.summary.text.is_empty() && self.common.is_empty();
        if self.is_operation(before, token) {
            self.expects = if token.is("UPDATE") { Expects::Table } else { Expects::Nothing };
            if self.depth == 0 && self.summary.operation.is_empty() {
                self.summary.operation = name.to_owned();
            }
            self.push(name);
        } else if is_first && token.is("WITH") {
            self.expects = Expects::Common;
        } else if is_first && self.depth == 0 {
            self.push(name);
            self.summary.operation = name.to_owned();
            if token.is("PRAGMA") {
                self.expects = Expects::Object;
            } else if token.is_any(&["CREATE", "DROP", "ALTER"]) {
                self.expects = Expects::Kind;
            } else if !token.is("VALUES") {
                return false;
            }
        } else if token.is("FROM") && !before.is("DISTINCT") {
            self.from.push(self.depth);
            self.expects = Expects::Table;
        } else if token.is_any(&["JOIN", "INTO"]) {
            self.expects = Expects::Table;
        } else if token.is_any(&["WHERE", "GROUP", "ORDER", "LIMIT", "HAVING", "SET", "WINDOW", "UNION", "RETURNING"]) {
            while self.from.last() == Some(&self.depth) {
                self.from.pop();
            }
        }
        !self.is_full
    }

    fn push(&mut self, part: &str) {
        let text = &mut self.summary.text;
        if text.len() + 1 + part.len() > MAX_SUMMARY {
            self.is_full = true;
            return;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(part);
    }

    fn finish(mut self) -> Summary {
        if let [_] = &self.tables[..]
            && !self.is_full
            && !self.summary.operation.eq_ignore_ascii_case("PRAGMA")
        {
            self.summary.collection = self.tables.pop();
        }
        self.summary
    }
}

#[cfg(test)]
mod tests;

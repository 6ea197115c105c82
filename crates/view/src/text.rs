//! Makes untrusted text safe for a terminal, and formats numbers.

use std::time::Duration;

use unicode_width::UnicodeWidthChar;

/// Whether a terminal may get this character.
///
/// It must not get control characters, or characters that change the direction of text.
fn is_harmless(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` in exactly `width` columns: cut off with a mark, or padded with spaces.
pub(crate) fn fit(text: &str, width: usize, unicode: bool) -> String {
    let mut fitted = cut(text, width, unicode);
    let used = columns(&fitted);
    fitted.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    fitted
}

/// `text` in at most `width` columns, with harmful characters replaced.
pub(crate) fn cut(text: &str, width: usize, unicode: bool) -> String {
    let mark = if unicode { "…" } else { "~" };
    let mut kept = String::new();
    let (mut used, mut fits) = (0, 0);
    for c in text.chars() {
        let c = if is_harmless(c) && (unicode || c.is_ascii()) { c } else { '?' };
        let wide = c.width().unwrap_or(0);
        if used + wide > width {
            kept.truncate(fits);
            if width > 0 {
                kept.push_str(mark);
            }
            return kept;
        }
        kept.push(c);
        used += wide;
        // Up to here, the mark still fits.
        if used < width {
            fits = kept.len();
        }
    }
    kept
}

pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// A number with a comma between groups of three digits.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration with three digits and a unit.
pub(crate) fn duration(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        _ if micros < 999.5 => (micros, "µs"),
        _ if micros < 999_500.0 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    let decimals = match value {
        _ if unit == "µs" || value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_characters_are_replaced_and_the_text_fits() {
        assert_eq!(fit("\u{1b}[31mred\u{202e}\n", 12, true), "?[31mred??  ");
        assert_eq!(fit("日本語テキスト", 7, true), "日本語…");
        assert_eq!(columns(&fit("日本語テキスト", 8, true)), 8);
        assert_eq!(cut(&"x".repeat(1 << 20), 5, true), "xxxx…");
        assert_eq!(cut("été", 3, false), "?t?");
        assert_eq!(cut("any", 0, true), "");
    }

    #[test]
    fn a_comma_separates_thousands() {
        let shown = [0, 999, 1_000, 4_998, 100_000, 1_234_567].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "4,998", "100,000", "1,234,567"]);
    }

    #[test]
    fn durations_have_three_digits() {
        let shown = |nanos| duration(Duration::from_nanos(nanos));
        assert_eq!(shown(0), "0 µs");
        assert_eq!(shown(999_400), "999 µs");
        assert_eq!(shown(999_600), "1.00 ms");
        assert_eq!(shown(12_345_678), "12.3 ms");
        assert_eq!(shown(999_600_000), "1.00 s");
        assert_eq!(shown(250_000_000_000), "250 s");
    }
}

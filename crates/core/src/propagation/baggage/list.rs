//! The list as bytes: limits are checked here, before anything is split or decoded.

use super::value::Baggage;

/// The most members that `line` can have, by its commas; `None` if a byte of it is neither printable ASCII nor a tab.
pub(super) fn scan(line: &[u8]) -> Option<usize> {
    let mut commas = 0;
    // Chunks whose commas fit a `u8`, and a multiple of 32 long, so that the compiler counts 16 or 32 bytes at a time.
    for chunk in line.chunks(224) {
        let (mut seen, mut bad) = (0u8, false);
        for &byte in chunk {
            seen += u8::from(byte == b',');
            bad |= !is_text(byte);
        }
        if bad {
            return None;
        }
        commas += usize::from(seen);
    }
    Some(commas + 1)
}

/// What passes through carriers of every kind unharmed.
fn is_text(byte: u8) -> bool {
    (byte.wrapping_sub(b' ') <= b'~' - b' ') | (byte == b'\t')
}

/// Within the limits.
pub(super) fn fits(bytes: usize, members: usize) -> bool {
    bytes <= Baggage::MAX_BYTES && members <= Baggage::MAX_MEMBERS
}

/// Whether there is more than commas and blanks.
pub(super) fn has_member(line: &[u8]) -> bool {
    line.iter().any(|byte| !matches!(byte, b',' | b' ' | b'\t'))
}

/// The lines joined by commas: byte for byte if they keep the limits, or else the members that do; and how many do not.
pub(super) fn combine<'a, I: Iterator<Item = &'a [u8]>>(lines: impl Fn() -> I) -> (String, usize) {
    let (mut bytes, mut members, mut clean) = (0usize, 0usize, true);
    for line in lines() {
        bytes = bytes.saturating_add(line.len() + 1);
        match scan(line) {
            Some(more) => members = members.saturating_add(more),
            None => clean = false,
        }
    }
    if !lines().any(has_member) {
        return (String::new(), 0);
    }
    let bytes = bytes.saturating_sub(1);
    if clean && fits(bytes, members) {
        let mut text = Vec::with_capacity(bytes);
        for (index, line) in lines().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(line);
        }
        return (String::from_utf8(text).expect("scanned"), 0);
    }
    keep(lines(), Baggage::MAX_BYTES, Baggage::MAX_MEMBERS)
}

/// The members that keep these limits and ours, joined by commas; and how many do not.
pub(super) fn keep<'a>(lines: impl Iterator<Item = &'a [u8]>, bytes: usize, members: usize) -> (String, usize) {
    let fits = |len, count| fits(len, count) && len <= bytes && count <= members;
    let (mut text, mut kept, mut dropped) = (Vec::new(), 0, 0);
    let all = lines.flat_map(|line| line.split(|byte| *byte == b','));
    for member in all.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
        let comma = usize::from(kept > 0);
        if member.iter().all(|byte| is_text(*byte)) && fits(text.len() + comma + member.len(), kept + 1) {
            text.extend_from_slice(&b","[..comma]);
            text.extend_from_slice(member);
            kept += 1;
        } else {
            dropped += 1;
        }
    }
    (String::from_utf8(text).expect("checked"), dropped)
}

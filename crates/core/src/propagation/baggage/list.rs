//! The list as bytes. Limits are checked here, before any member is split or decoded.

/// The maximum number of bytes of a list, including commas.
pub(super) const MAX_BYTES: usize = 8_192;
/// The maximum number of members of a list.
pub(super) const MAX_MEMBERS: usize = 64;

/// Returns the maximum number of members in `line`, by counting its commas.
///
/// Returns `None` if a byte is neither printable ASCII nor a tab.
pub(super) fn scan(line: &[u8]) -> Option<usize> {
    let mut commas = 0;
    // The number of commas in a chunk fits a `u8`. The length of a chunk is a multiple of 32, so
    // that the compiler counts 16 or 32 bytes at a time.
    for chunk in line.chunks(224) {
        let (mut chunk_commas, mut is_invalid) = (0u8, false);
        for &byte in chunk {
            chunk_commas += u8::from(byte == b',');
            is_invalid |= !is_text(byte);
        }
        if is_invalid {
            return None;
        }
        commas += usize::from(chunk_commas);
    }
    Some(commas + 1)
}

/// Whether every kind of carrier passes this byte on unchanged.
fn is_text(byte: u8) -> bool {
    (byte.wrapping_sub(b' ') <= b'~' - b' ') | (byte == b'\t')
}

/// Whether a list of this size is within the limits.
pub(super) fn fits(bytes: usize, members: usize) -> bool {
    bytes <= MAX_BYTES && members <= MAX_MEMBERS
}

/// Whether `line` has anything but commas and blanks.
pub(super) fn has_member(line: &[u8]) -> bool {
    line.iter().any(|byte| !matches!(byte, b',' | b' ' | b'\t'))
}

/// Joins the lines with commas, byte for byte if they are within the limits.
///
/// Otherwise it joins the members that fit. The second result is the number of dropped members.
pub(super) fn combine<'a, I: Iterator<Item = &'a [u8]>>(lines: impl Fn() -> I) -> (String, usize) {
    let (mut bytes, mut members, mut is_clean) = (0usize, 0usize, true);
    for line in lines() {
        bytes = bytes.saturating_add(line.len() + 1);
        match scan(line) {
            Some(more) => members = members.saturating_add(more),
            None => is_clean = false,
        }
    }
    if !lines().any(has_member) {
        return (String::new(), 0);
    }
    let bytes = bytes.saturating_sub(1);
    if is_clean && fits(bytes, members) {
        let mut text = Vec::with_capacity(bytes);
        for (index, line) in lines().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(line);
        }
        return (String::from_utf8(text).expect("scan() found only ASCII"), 0);
    }
    keep(lines(), MAX_BYTES, MAX_MEMBERS)
}

/// Joins the members that are within the given limits and the maximums.
///
/// The second result is the number of dropped members.
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
    (String::from_utf8(text).expect("is_text() is true for every byte"), dropped)
}

//! Lower-case hexadecimal digits, eight at a time in one register.
//!
//! There is no table, and no branch depends on a digit.

/// A one in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = ONES << 7;

/// Decodes digits, and remembers whether all of them were valid.
pub(crate) struct Decoder {
    /// A bad digit clears the high bit of the byte at its position.
    good: u64,
}

impl Decoder {
    pub(crate) const fn new() -> Self {
        Decoder { good: HIGH_BITS }
    }

    /// Decodes 16 digits.
    pub(crate) const fn decode_u64(&mut self, digits: [u8; 16]) -> u64 {
        let [a, b, c, d, e, f, g, h, low @ ..] = digits;
        let high = self.decode([a, b, c, d, e, f, g, h]);
        (high as u64) << 32 | self.decode(low) as u64
    }

    /// Decodes eight digits, the most significant first.
    pub(crate) const fn decode(&mut self, digits: [u8; 8]) -> u32 {
        let bytes = u64::from_be_bytes(digits);
        // `add(bytes, x)` sets the high bit of each byte that is at least `x`; for bytes below 0x80
        // there is no carry into the next byte. These four are the bounds of two ranges: a byte
        // within either range has passed an odd number of them. A byte of 0x80 or more is bad,
        // whatever it carries.
        let passed = add(bytes, b'0') ^ add(bytes, b'9' + 1) ^ add(bytes, b'a') ^ add(bytes, b'f' + 1);
        self.good &= passed & !bytes;
        // Only letters have bit 0x40, and `a` is 0x61.
        let values = (bytes & (ONES * 0x0f)).wrapping_add(((bytes >> 6) & ONES) * 9);
        let pairs = (values | (values >> 4)) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
        (fours | (fours >> 16)) as u32
    }

    /// Whether all digits were lower-case hexadecimal.
    pub(crate) const fn is_good(&self) -> bool {
        self.good & HIGH_BITS == HIGH_BITS
    }
}

const fn add(bytes: u64, limit: u8) -> u64 {
    bytes.wrapping_add(ONES * (0x80 - limit) as u64)
}

/// Returns the 16 digits of `value`.
pub(crate) const fn encode_u64(value: u64) -> [u8; 16] {
    let (high, low) = (encode((value >> 32) as u32), encode(value as u32));
    (high as u128 | (low as u128) << 64).to_le_bytes()
}

/// Returns the eight digits of `value`, the first one in the lowest byte.
const fn encode(value: u32) -> u64 {
    let fours = (value as u64 | ((value as u64) << 16)) & 0x0000_ffff_0000_ffff;
    let pairs = (fours | (fours << 8)) & 0x00ff_00ff_00ff_00ff;
    let values = (pairs | (pairs << 4)) & (ONES * 0x0f);
    // A value of ten or more plus 6 is at least 0x10.
    let letters = ((values + ONES * 6) >> 4) & ONES;
    (values + ONES * b'0' as u64 + letters * (b'a' - b'0' - 10) as u64).swap_bytes()
}

#[cfg(test)]
mod tests {
    use super::{Decoder, encode_u64};

    #[test]
    fn every_byte_at_every_position_is_a_digit_or_bad() {
        for position in 0..16 {
            for byte in 0..=u8::MAX {
                let mut digits = *b"09af1b2c3d4e5f67";
                digits[position] = byte;
                let mut decoder = Decoder::new();
                let value = decoder.decode_u64(digits);
                let is_digit = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                assert_eq!(decoder.is_good(), is_digit, "{digits:?}");
                if is_digit {
                    let text = std::str::from_utf8(&digits).expect("digits are ASCII");
                    assert_eq!(Ok(value), u64::from_str_radix(text, 16));
                }
                decoder.decode(*b"01234567");
                assert_eq!(decoder.is_good(), is_digit, "good digits do not clear an error");
            }
        }
    }

    #[test]
    fn numbers_have_the_same_digits_as_in_std() {
        for half in 0..=u64::from(u16::MAX) {
            for value in [half, half << 16, half << 32, half << 48] {
                assert_eq!(encode_u64(value), format!("{value:016x}").as_bytes());
            }
        }
    }
}

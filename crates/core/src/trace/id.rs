//! Trace and span ids, and trace flags: W3C Trace Context Level 2, §3.2.2.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use super::hex::{Decoder, encode_u64};
use super::{clock, rng};

/// The 16-byte id of a trace. It is never all zero.
///
/// # Examples
/// ```
/// use throughline_core::TraceId;
///
/// let id: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse()?;
/// assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert_eq!(TraceId::from_bytes([0; 16]), None);
/// assert!("4BF92F3577B34DA6A3CE929D0E0E4736".parse::<TraceId>().is_err(), "upper case is not W3C");
/// # Ok::<(), throughline_core::trace::ParseIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// Returns the id with these bytes, most significant first; `None` if all are zero.
    pub const fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        if u128::from_ne_bytes(bytes) == 0 { None } else { Some(Self(bytes)) }
    }

    /// Returns the id with this value, whose most significant byte is the first; `None` for zero.
    ///
    /// ```
    /// use throughline_core::TraceId;
    ///
    /// let id = TraceId::from_u128(0x4bf92f3577b34da6a3ce929d0e0e4736).expect("it is not zero");
    /// assert_eq!(format!("{id:x}"), "4bf92f3577b34da6a3ce929d0e0e4736");
    /// assert_eq!((id.to_u128(), TraceId::from_u128(0)), (0x4bf92f3577b34da6a3ce929d0e0e4736, None));
    /// ```
    pub const fn from_u128(id: u128) -> Option<Self> {
        Self::from_bytes(id.to_be_bytes())
    }

    pub(crate) const fn from_u64s(high: u64, low: u64) -> Option<Self> {
        Self::from_u128((high as u128) << 64 | low as u128)
    }

    /// Parses exactly 32 lower-case hexadecimal digits that are not all `0`.
    ///
    /// Any other text returns `None`.
    pub const fn from_hex(hex: &[u8]) -> Option<Self> {
        let Some((high, low)) = hex.split_first_chunk() else { return None };
        let Some((low, [])) = low.split_first_chunk() else { return None };
        let mut decoder = Decoder::new();
        let id = Self::from_u64s(decoder.decode_u64(*high), decoder.decode_u64(*low));
        if decoder.is_good() { id } else { None }
    }

    /// Returns a random id.
    ///
    /// All 16 bytes are random, so [`TraceFlags::RANDOM`] may be set with it. It takes no lock. It
    /// makes no system call, except for the first id on a thread, whose generator is seeded by the
    /// operating system.
    pub fn random() -> Self {
        Self::random_at(clock::ticks())
    }

    /// Returns a random id. `ticks` is a time that the caller has just read.
    pub(super) fn random_at(ticks: u64) -> Self {
        loop {
            let [high, low] = rng::next_pair(ticks);
            if let Some(id) = Self::from_u64s(high, low) {
                return id;
            }
        }
    }

    /// Returns the bytes, most significant first.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Returns the value, whose most significant byte is the first.
    pub const fn to_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// Returns the 32 lower-case hexadecimal digits, in ASCII.
    pub const fn to_hex(self) -> [u8; 32] {
        let id = self.to_u128();
        let (high, low) = (encode_u64((id >> 64) as u64), encode_u64(id as u64));
        let (mut hex, mut i) = ([0; 32], 0);
        while i < 16 {
            (hex[i], hex[i + 16]) = (high[i], low[i]);
            i += 1;
        }
        hex
    }

    /// Returns the 56 bits that samplers compare with their threshold.
    ///
    /// These are the low 7 bytes, which should be random by Level 2 (§3.2.2.5).
    pub const fn randomness(self) -> u64 {
        self.to_u128() as u64 & ((1 << 56) - 1)
    }
}

/// The 8-byte id of a span in its trace. It is never all zero.
///
/// # Examples
/// ```
/// use throughline_core::SpanId;
///
/// let id: SpanId = "00f067aa0ba902b7".parse()?;
/// assert_eq!(id.to_bytes(), [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
/// assert_eq!(SpanId::from_bytes([0; 8]), None);
/// # Ok::<(), throughline_core::trace::ParseIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// Returns the id with these bytes, most significant first; `None` if all are zero.
    pub const fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        Self::from_u64(u64::from_be_bytes(bytes))
    }

    /// Returns the id with this value, whose most significant byte is the first; `None` for zero.
    ///
    /// ```
    /// use throughline_core::SpanId;
    ///
    /// let id = SpanId::from_u64(0x00f067aa0ba902b7).expect("it is not zero");
    /// assert_eq!(format!("{id:x}"), "00f067aa0ba902b7");
    /// assert_eq!((id.to_u64(), SpanId::from_u64(0)), (0x00f067aa0ba902b7, None));
    /// ```
    pub const fn from_u64(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Parses exactly 16 lower-case hexadecimal digits that are not all `0`.
    ///
    /// Any other text returns `None`.
    pub const fn from_hex(hex: &[u8]) -> Option<Self> {
        let Some((digits, [])) = hex.split_first_chunk() else { return None };
        let mut decoder = Decoder::new();
        let id = Self::from_u64(decoder.decode_u64(*digits));
        if decoder.is_good() { id } else { None }
    }

    /// Returns a random id. See [`TraceId::random`].
    pub fn random() -> Self {
        Self::random_at(clock::ticks())
    }

    /// Returns a random id. `ticks` is a time that the caller has just read.
    #[inline]
    pub(super) fn random_at(ticks: u64) -> Self {
        loop {
            if let Some(id) = NonZeroU64::new(rng::next(ticks)) {
                return Self(id);
            }
        }
    }

    /// Returns the bytes, most significant first.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// Returns the value, whose most significant byte is the first.
    pub const fn to_u64(self) -> u64 {
        self.0.get()
    }

    /// Returns the 16 lower-case hexadecimal digits, in ASCII.
    pub const fn to_hex(self) -> [u8; 16] {
        encode_u64(self.0.get())
    }
}

/// The flags of a trace: W3C Trace Context Level 2, §3.2.2.4.
///
/// Bits that Level 2 does not define are never kept.
///
/// # Examples
/// ```
/// use throughline_core::TraceFlags;
///
/// let flags = TraceFlags::from_byte(0xff);
/// assert_eq!(flags, TraceFlags::SAMPLED | TraceFlags::RANDOM);
/// assert_eq!(flags.with_sampled(false).to_byte(), 0x02);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TraceFlags(u8);

impl TraceFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The caller may have recorded the trace.
    pub const SAMPLED: Self = Self(1);
    /// The low 7 bytes of the trace id are random.
    pub const RANDOM: Self = Self(2);

    /// Returns the flags in `byte`. Undefined bits are dropped (§3.2.2.4.3).
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte & 0b11)
    }

    /// Returns the byte that is propagated.
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// Whether [`SAMPLED`](Self::SAMPLED) is set.
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED.0 != 0
    }

    /// Whether [`RANDOM`](Self::RANDOM) is set.
    pub const fn is_random(self) -> bool {
        self.0 & Self::RANDOM.0 != 0
    }

    /// Returns the same flags with [`SAMPLED`](Self::SAMPLED) set or cleared.
    #[must_use]
    pub const fn with_sampled(self, sampled: bool) -> Self {
        Self((self.0 & !Self::SAMPLED.0) | sampled as u8)
    }
}

impl std::ops::BitOr for TraceFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for TraceFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceFlags({:02x})", self.0)
    }
}

/// A text is not a [`TraceId`] or a [`SpanId`].
///
/// Its length is wrong, a digit is not lower-case hexadecimal, or all digits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError(());

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a trace or span id: 32 or 16 lower-case hexadecimal digits, not all zero")
    }
}

impl std::error::Error for ParseIdError {}

macro_rules! text {
    ($id:ident) => {
        impl FromStr for $id {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Self::from_hex(text.as_bytes()).ok_or(ParseIdError(()))
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(std::str::from_utf8(&self.to_hex()).expect("hexadecimal digits are ASCII"))
            }
        }

        /// Writes all digits, with leading zeros. `{:#x}` adds `0x`.
        impl fmt::LowerHex for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad_integral(true, "0x", std::str::from_utf8(&self.to_hex()).expect("hexadecimal digits are ASCII"))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self)
            }
        }
    };
}

text!(TraceId);
text!(SpanId);

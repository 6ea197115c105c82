//! The taxonomy of errors: gRPC status codes, and their HTTP statuses.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::str::FromStr;

use http::StatusCode;

/// The kind of an error: the 16 status codes of gRPC that are errors.
///
/// # Examples
/// ```
/// use http::StatusCode;
/// use throughline::Code;
///
/// assert_eq!(Code::DeadlineExceeded.http_status(), StatusCode::GATEWAY_TIMEOUT);
/// assert_eq!(Code::DeadlineExceeded.as_str(), "DEADLINE_EXCEEDED");
/// assert_eq!("NOT_FOUND".parse(), Ok(Code::NotFound));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The caller gave up.
    Cancelled = 1,
    /// An unknown error.
    Unknown = 2,
    /// The request is wrong, in any state of the system.
    InvalidArgument = 3,
    /// The time ran out. The work may have been done nevertheless.
    DeadlineExceeded = 4,
    /// The resource does not exist.
    NotFound = 5,
    /// The resource exists already.
    AlreadyExists = 6,
    /// The caller is known, and has no permission.
    PermissionDenied = 7,
    /// A quota, a limit, or space is used up.
    ResourceExhausted = 8,
    /// The system is not in the required state, and a retry does not help.
    FailedPrecondition = 9,
    /// A conflict with another operation. The caller may retry the whole.
    Aborted = 10,
    /// Past the end of the valid range.
    OutOfRange = 11,
    /// The service does not offer this operation.
    Unimplemented = 12,
    /// An invariant of the service is broken.
    Internal = 13,
    /// The service is not available now. A later retry may help.
    Unavailable = 14,
    /// Data is lost or damaged for good.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

use Code::*;

impl Code {
    /// All codes, by number.
    pub const ALL: [Code; 16] = [
        Cancelled,
        Unknown,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
        Unauthenticated,
    ];

    /// Returns the upper-case name, as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cancelled => "CANCELLED",
            Unknown => "UNKNOWN",
            InvalidArgument => "INVALID_ARGUMENT",
            DeadlineExceeded => "DEADLINE_EXCEEDED",
            NotFound => "NOT_FOUND",
            AlreadyExists => "ALREADY_EXISTS",
            PermissionDenied => "PERMISSION_DENIED",
            ResourceExhausted => "RESOURCE_EXHAUSTED",
            FailedPrecondition => "FAILED_PRECONDITION",
            Aborted => "ABORTED",
            OutOfRange => "OUT_OF_RANGE",
            Unimplemented => "UNIMPLEMENTED",
            Internal => "INTERNAL",
            Unavailable => "UNAVAILABLE",
            DataLoss => "DATA_LOSS",
            Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The meaning, as text that any client may see.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Cancelled => "cancelled",
            Unknown => "unknown error",
            InvalidArgument => "invalid argument",
            DeadlineExceeded => "deadline exceeded",
            NotFound => "not found",
            AlreadyExists => "already exists",
            PermissionDenied => "permission denied",
            ResourceExhausted => "resource exhausted",
            FailedPrecondition => "failed precondition",
            Aborted => "aborted",
            OutOfRange => "out of range",
            Unimplemented => "unimplemented",
            Internal => "internal error",
            Unavailable => "unavailable",
            DataLoss => "data loss",
            Unauthenticated => "unauthenticated",
        }
    }

    /// Returns gRPC's number of the code: 1 to 16.
    pub const fn grpc_number(self) -> i32 {
        self as i32
    }

    /// Returns the code with gRPC's `number`.
    ///
    /// `None`: 0, which is not an error, and numbers that gRPC does not define.
    ///
    /// ```
    /// use throughline::Code;
    ///
    /// assert_eq!(Code::from_grpc_number(14), Some(Code::Unavailable));
    /// assert_eq!(Code::from_grpc_number(0), None);
    /// ```
    pub fn from_grpc_number(number: i32) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.grpc_number() == number)
    }

    /// Returns the HTTP status to send.
    ///
    /// It is not an inverse of [`from_http_status`](Self::from_http_status).
    pub fn http_status(self) -> StatusCode {
        let status = match self {
            Cancelled => 499,
            Unknown | Internal | DataLoss => 500,
            InvalidArgument | FailedPrecondition | OutOfRange => 400,
            DeadlineExceeded => 504,
            NotFound => 404,
            AlreadyExists | Aborted => 409,
            PermissionDenied => 403,
            Unauthenticated => 401,
            ResourceExhausted => 429,
            Unimplemented => 501,
            Unavailable => 503,
        };
        StatusCode::from_u16(status).expect("each is between 100 and 999")
    }

    /// Returns the meaning of an HTTP response that names no code.
    ///
    /// `None`: it is not an error.
    ///
    /// ```
    /// use http::StatusCode;
    /// use throughline::Code;
    ///
    /// assert_eq!(Code::from_http_status(StatusCode::BAD_GATEWAY), Some(Code::Unavailable));
    /// assert_eq!(Code::from_http_status(StatusCode::IM_A_TEAPOT), Some(Code::FailedPrecondition));
    /// assert_eq!(Code::from_http_status(StatusCode::OK), None);
    /// ```
    pub fn from_http_status(status: StatusCode) -> Option<Code> {
        Some(match status.as_u16() {
            400 => InvalidArgument,
            401 => Unauthenticated,
            403 => PermissionDenied,
            404 => NotFound,
            409 => Aborted,
            429 => ResourceExhausted,
            499 => Cancelled,
            501 => Unimplemented,
            502 | 503 => Unavailable,
            408 | 504 => DeadlineExceeded,
            402..500 => FailedPrecondition,
            500.. => Internal,
            _ => return None,
        })
    }

    /// Returns what an HTTP response without `grpc-status` means to a gRPC client.
    ///
    /// gRPC, "HTTP to gRPC Status Code Mapping".
    ///
    /// ```
    /// use http::StatusCode;
    /// use throughline::Code;
    ///
    /// assert_eq!(Code::from_http_status_of_grpc(StatusCode::NOT_FOUND), Code::Unimplemented);
    /// ```
    pub fn from_http_status_of_grpc(status: StatusCode) -> Code {
        match status.as_u16() {
            400 => Internal,
            401 => Unauthenticated,
            403 => PermissionDenied,
            404 => Unimplemented,
            429 | 502..=504 => Unavailable,
            _ => Unknown,
        }
    }

    /// Returns whether the same call may succeed if it is sent again after a pause.
    ///
    /// The choice per code, from the documentation of gRPC's codes:
    ///
    /// | Code | | Why |
    /// |---|---|---|
    /// | `UNAVAILABLE` | yes | "most likely a transient condition": the service is down or overloaded |
    /// | `ABORTED` | no | a conflict: read again and repeat the whole, not this call |
    /// | `RESOURCE_EXHAUSTED` | no | a quota lasts. With [`retry_after`](crate::Error::retry_after), retry then |
    /// | `DEADLINE_EXCEEDED` | no | the caller's own time is over, and the work may have been done |
    /// | `CANCELLED` | no | the caller gave up |
    /// | `UNKNOWN`, `INTERNAL`, `DATA_LOSS` | no | a defect, which lasts |
    /// | all others | no | the request or the state must change first |
    ///
    /// - [`Error::retryable`](crate::Error::retryable) is what the service says about one error,
    ///   and takes precedence.
    /// - A service that is `UNAVAILABLE` may have done the work nevertheless. Whether a second one
    ///   does harm, only the caller knows: retry calls that are idempotent.
    ///
    /// ```
    /// use throughline::Code;
    ///
    /// assert!(Code::Unavailable.is_retryable());
    /// assert!(!Code::Aborted.is_retryable());
    /// ```
    pub const fn is_retryable(self) -> bool {
        matches!(self, Unavailable)
    }

    /// Whether the code of a callee means the same to the caller.
    ///
    /// All other codes of a callee are an internal error of the service that passes them on.
    pub(super) fn crosses_services(self) -> bool {
        matches!(self, DeadlineExceeded | Cancelled | Unavailable | ResourceExhausted)
    }

    /// Whether the error's message is for the service's operators, not for its callers.
    pub(crate) fn is_internal_detail(self) -> bool {
        matches!(self, Internal | Unknown | DataLoss)
    }

    pub(super) fn io_kind(self) -> io::ErrorKind {
        match self {
            DeadlineExceeded => io::ErrorKind::TimedOut,
            InvalidArgument | OutOfRange => io::ErrorKind::InvalidInput,
            NotFound => io::ErrorKind::NotFound,
            AlreadyExists => io::ErrorKind::AlreadyExists,
            PermissionDenied | Unauthenticated => io::ErrorKind::PermissionDenied,
            Unimplemented => io::ErrorKind::Unsupported,
            DataLoss => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        }
    }

    pub(super) fn from_io_kind(kind: io::ErrorKind) -> Code {
        match kind {
            io::ErrorKind::TimedOut => DeadlineExceeded,
            io::ErrorKind::InvalidInput => InvalidArgument,
            io::ErrorKind::NotFound => NotFound,
            io::ErrorKind::AlreadyExists => AlreadyExists,
            io::ErrorKind::PermissionDenied => PermissionDenied,
            io::ErrorKind::Unsupported => Unimplemented,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => DataLoss,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Unavailable,
            _ => Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = ParseCodeError;

    /// Parses an upper-case name.
    fn from_str(name: &str) -> Result<Self, ParseCodeError> {
        Code::ALL.into_iter().find(|code| code.as_str() == name).ok_or(ParseCodeError(()))
    }
}

/// The text is not the name of a [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseCodeError(());

impl fmt::Display for ParseCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the name of a status code")
    }
}

impl StdError for ParseCodeError {}

//! Problem documents of internal services that an edge passes on.

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::{Code, Error};

impl Error {
    /// The error in a document of an internal service.
    ///
    /// `None`: the document is not one of these.
    ///
    /// Documents of internal services have a [`Code`], and an origin and a path once they have left
    /// the service. Documents of other libraries and of handlers have none of these.
    ///
    /// A body that is not a document is the error that the status means.
    pub(crate) fn from_internal_document(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Error> {
        let Ok(mut document) = serde_json::from_slice::<Map<String, Value>>(body) else {
            return Some(Error::from_status_or_unknown(status, headers));
        };
        let has_code = || document.get("code")?.as_str()?.parse::<Code>().ok();
        let is_ours = has_code().is_some() || document.contains_key("origin") || document.contains_key("path");
        is_ours.then(|| Error::from_status_or_unknown(status, headers).with_members(&mut document))
    }

    /// The error of a response whose document cannot be read: the meaning of the status.
    pub(crate) fn from_status_or_unknown(status: StatusCode, headers: &HeaderMap) -> Error {
        Error::from_head(Code::from_http_status(status).unwrap_or(Code::Unknown), headers)
    }
}

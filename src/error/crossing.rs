//! An error on its way from service to service.

use super::public::remove_mark;
use super::{Code, Error, MAX_NAME, MAX_PATH, cut};

impl Error {
    /// Keeps the code when this service passes on the error of another service.
    ///
    /// Otherwise the code becomes `INTERNAL`, unless it is `DEADLINE_EXCEEDED`, `CANCELLED`,
    /// `UNAVAILABLE` or `RESOURCE_EXHAUSTED`. For example, a `NOT_FOUND` from a callee does not
    /// mean that the resource of this request is not there.
    #[must_use]
    pub fn preserve_code(self) -> Error {
        self.change(|inner| inner.is_preserved = true)
    }

    /// Sets the origin to `host`, which sent the response, if the response names none.
    pub(crate) fn with_default_origin(self, host: Option<&str>) -> Error {
        match host {
            Some(host) if self.0.path.is_empty() => {
                self.change(|inner| inner.path = vec![cut(host, MAX_NAME).to_owned()])
            }
            _ => self,
        }
    }

    /// The error as it leaves `service`: adds the name to the path.
    ///
    /// - The first name is the origin, and stays. After 15 others, the name replaces the last.
    /// - An error from another service becomes `INTERNAL`, unless its code means the same to every
    ///   caller, or it is [preserved](Self::preserve_code). Its details are then no longer
    ///   [public](Self::with_public_detail).
    ///
    /// [`ContextLayer`](crate::ContextLayer) calls this for the responses of HTTP handlers. Call it
    /// for responses that are sent in other ways.
    ///
    /// ```
    /// use throughline::{Code, Error};
    ///
    /// let error = Error::new(Code::NotFound, "no such card");
    /// let sent = error.through_service(Some("cards")).to_response();
    /// let received = Error::from_response(sent.status(), sent.headers(), sent.body());
    /// let received = received.expect("a 404 is an error");
    /// assert_eq!(received.code(), Code::NotFound);
    /// let passed_on = received.through_service(Some("api"));
    /// assert_eq!((passed_on.code(), passed_on.origin()), (Code::Internal, Some("cards")));
    /// ```
    #[must_use]
    pub fn through_service(self, service: Option<&str>) -> Error {
        self.change(|inner| {
            if inner.is_remote && !inner.is_preserved && !inner.code.crosses_services() {
                inner.code = Code::Internal;
                // They describe the other code, and a request that this service made itself.
                inner.problem = None;
                inner.details.iter_mut().for_each(remove_mark);
            }
            if let Some(service) = service {
                inner.path.truncate(MAX_PATH - 1);
                inner.path.push(cut(service, MAX_NAME).to_owned());
            }
        })
    }
}

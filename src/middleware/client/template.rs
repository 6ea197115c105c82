use std::borrow::Cow;

/// The template of a call's path, such as `/cards/{id}`: in the extensions of a request.
///
/// It names the CLIENT span: `GET /cards/{id}` instead of `GET`. The span has it as `url.template`.
/// Calls to one operation then have one name, whatever their ids. It is not sent, and has no effect
/// on a gRPC call, whose method is its name.
///
/// With reqwest, use [`ClientLayer::template`](crate::ClientLayer::template).
///
/// # Examples
/// ```
/// use http::Request;
/// use throughline::middleware::client::UrlTemplate;
///
/// let mut request = Request::get("http://cards/cards/7").body(())?;
/// request.extensions_mut().insert(UrlTemplate::new("/cards/{id}"));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate(Cow<'static, str>);

impl UrlTemplate {
    /// Values of the path in braces, without scheme, host and query: `/cards/{id}`.
    pub fn new(template: impl Into<Cow<'static, str>>) -> Self {
        UrlTemplate(template.into())
    }

    /// Returns the template.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

//! The standard messages of `google.rpc` that other services send as details, as protobuf's JSON.

use serde_json::{Map, Value, json};
use tonic::Status;
use tonic_types::{
    BadRequest, DebugInfo, ErrorDetail, ErrorInfo, FieldViolation, Help, HelpLink, LocalizedMessage,
    PreconditionFailure, PreconditionViolation, QuotaFailure, QuotaViolation, RequestInfo, ResourceInfo, StatusExt,
};

use super::DOMAIN;
use crate::error::MAX_DOCUMENT;
use crate::error::public::{is_public, without_mark};

const TYPE_PREFIX: &str = "type.googleapis.com/google.rpc.";

/// The details of a status that this library did not write, each with its `@type`.
///
/// The time to wait is read elsewhere.
pub(super) fn standard(status: &Status) -> impl Iterator<Item = Map<String, Value>> {
    let is_read = status.details().len() <= MAX_DOCUMENT;
    let details = if is_read { status.get_error_details_vec() } else { Vec::new() };
    details.into_iter().filter_map(object_of)
}

/// The details that a status has as standard messages, and those as JSON.
///
/// Only public details become standard messages. If the status is for an internal service, they are
/// also in the JSON, which says that they are public.
pub(super) fn split(details: &[Map<String, Value>], is_redacted: bool) -> (Vec<ErrorDetail>, Vec<&Map<String, Value>>) {
    let message = |detail| if is_redacted || is_public(detail) { message_of(detail) } else { None };
    let (standard, json): (Vec<_>, Vec<_>) = details.iter().map(|detail| (message(detail), detail)).unzip();
    let json = json.into_iter().zip(&standard).filter(|(_, message)| !is_redacted || message.is_none());
    let json = json.map(|(detail, _)| detail).collect();
    (standard.into_iter().flatten().collect(), json)
}

/// The message whose JSON is `detail`. `None` if there is none, or if it has less than the JSON.
fn message_of(detail: &Map<String, Value>) -> Option<ErrorDetail> {
    let detail = without_mark(detail);
    let message = parse(&detail)?;
    (object_of(message.clone())? == detail).then_some(message)
}

fn parse(detail: &Map<String, Value>) -> Option<ErrorDetail> {
    let text = |object: &Value, name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let list = |name: &str| detail.get(name).and_then(Value::as_array).into_iter().flatten();
    let member = |name: &str| detail.get(name).and_then(Value::as_str).unwrap_or_default();
    Some(match detail.get("@type")?.as_str()?.strip_prefix(TYPE_PREFIX)? {
        "BadRequest" => BadRequest::new(
            list("fieldViolations")
                .map(|item| FieldViolation::new(text(item, "field"), text(item, "description")))
                .collect::<Vec<_>>(),
        )
        .into(),
        "PreconditionFailure" => PreconditionFailure::new(
            list("violations")
                .map(|item| {
                    PreconditionViolation::new(text(item, "type"), text(item, "subject"), text(item, "description"))
                })
                .collect::<Vec<_>>(),
        )
        .into(),
        "QuotaFailure" => QuotaFailure::new(
            list("violations")
                .map(|item| QuotaViolation::new(text(item, "subject"), text(item, "description")))
                .collect::<Vec<_>>(),
        )
        .into(),
        "Help" => Help::new(
            list("links").map(|item| HelpLink::new(text(item, "description"), text(item, "url"))).collect::<Vec<_>>(),
        )
        .into(),
        "ResourceInfo" => {
            let [kind, name, owner, description] = ["resourceType", "resourceName", "owner", "description"].map(member);
            ResourceInfo::new(kind, name, owner, description).into()
        }
        "RequestInfo" => RequestInfo::new(member("requestId"), member("servingData")).into(),
        "LocalizedMessage" => LocalizedMessage::new(member("locale"), member("message")).into(),
        _ => return None,
    })
}

fn object_of(message: ErrorDetail) -> Option<Map<String, Value>> {
    let (name, value) = json_of(message)?;
    let Value::Object(mut object) = value else { return None };
    object.insert("@type".to_owned(), format!("{TYPE_PREFIX}{name}").into());
    Some(object)
}

pub(super) fn is_debug_info(detail: &Map<String, Value>) -> bool {
    detail.get("@type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with(".DebugInfo"))
}

fn json_of(detail: ErrorDetail) -> Option<(&'static str, Value)> {
    Some(match detail {
        ErrorDetail::ErrorInfo(ErrorInfo { reason, domain, metadata }) if domain != DOMAIN => {
            ("ErrorInfo", json!({"reason": reason, "domain": domain, "metadata": metadata}))
        }
        ErrorDetail::BadRequest(BadRequest { field_violations }) => {
            let violations = field_violations.into_iter().map(|violation| {
                let mut object = json!({"field": violation.field, "description": violation.description});
                if !violation.reason.is_empty() {
                    object["reason"] = violation.reason.into();
                }
                if let Some(message) = violation.localized_message {
                    object["localizedMessage"] = localized(message);
                }
                object
            });
            ("BadRequest", json!({"fieldViolations": violations.collect::<Vec<_>>()}))
        }
        ErrorDetail::PreconditionFailure(PreconditionFailure { violations }) => {
            let violations = violations.into_iter().map(|violation| {
                json!({"type": violation.r#type, "subject": violation.subject, "description": violation.description})
            });
            ("PreconditionFailure", json!({"violations": violations.collect::<Vec<_>>()}))
        }
        ErrorDetail::QuotaFailure(QuotaFailure { violations }) => {
            let violations = violations
                .into_iter()
                .map(|violation| json!({"subject": violation.subject, "description": violation.description}));
            ("QuotaFailure", json!({"violations": violations.collect::<Vec<_>>()}))
        }
        ErrorDetail::RequestInfo(RequestInfo { request_id, serving_data }) => {
            ("RequestInfo", json!({"requestId": request_id, "servingData": serving_data}))
        }
        ErrorDetail::ResourceInfo(ResourceInfo { resource_type, resource_name, owner, description }) => (
            "ResourceInfo",
            json!({
                "resourceType": resource_type, "resourceName": resource_name, "owner": owner, "description": description,
            }),
        ),
        ErrorDetail::Help(Help { links }) => {
            let links = links.into_iter().map(|link| json!({"description": link.description, "url": link.url}));
            ("Help", json!({"links": links.collect::<Vec<_>>()}))
        }
        ErrorDetail::LocalizedMessage(message) => ("LocalizedMessage", localized(message)),
        ErrorDetail::DebugInfo(DebugInfo { stack_entries, detail }) => {
            ("DebugInfo", json!({"stackEntries": stack_entries, "detail": detail}))
        }
        _ => return None,
    })
}

fn localized(LocalizedMessage { locale, message }: LocalizedMessage) -> Value {
    json!({"locale": locale, "message": message})
}

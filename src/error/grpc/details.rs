//! The standard messages of `google.rpc` that other services send as details, as protobuf's JSON.

use serde_json::{Map, Value, json};
use tonic::Status;
use tonic_types::{
    BadRequest, DebugInfo, ErrorDetail, ErrorInfo, Help, LocalizedMessage, PreconditionFailure, QuotaFailure,
    RequestInfo, ResourceInfo, StatusExt,
};

use super::DOMAIN;
use crate::error::MAX_DOCUMENT;

/// The details of a status that this library did not write, each with its `@type`.
///
/// The time to wait is read elsewhere.
pub(super) fn standard(status: &Status) -> impl Iterator<Item = Map<String, Value>> {
    let is_read = status.details().len() <= MAX_DOCUMENT;
    let details = if is_read { status.get_error_details_vec() } else { Vec::new() };
    details.into_iter().filter_map(|detail| {
        let (name, value) = json_of(detail)?;
        let Value::Object(mut object) = value else { return None };
        object.insert("@type".to_owned(), format!("type.googleapis.com/google.rpc.{name}").into());
        Some(object)
    })
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

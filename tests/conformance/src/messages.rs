//! The messages of `connectrpc.conformance.v1`, as far as gRPC needs them.
//!
//! Source: the `.proto` files of the Go module `connectrpc.com/conformance`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::{Message, Oneof};
use prost_types::Any;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ServerCompatRequest {
    #[prost(uint32, tag = "6")]
    pub(crate) message_receive_limit: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ServerCompatResponse {
    #[prost(string, tag = "1")]
    pub(crate) host: String,
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClientCompatRequest {
    #[prost(string, tag = "1")]
    pub(crate) test_name: String,
    /// 2: gzip.
    #[prost(int32, tag = "5")]
    pub(crate) compression: i32,
    #[prost(string, tag = "6")]
    pub(crate) host: String,
    #[prost(uint32, tag = "7")]
    pub(crate) port: u32,
    #[prost(uint32, tag = "10")]
    pub(crate) message_receive_limit: u32,
    #[prost(string, tag = "11")]
    pub(crate) service: String,
    #[prost(string, tag = "12")]
    pub(crate) method: String,
    /// 1: unary, 2: client stream, 3: server stream, 4: half duplex, 5: full duplex.
    #[prost(int32, tag = "13")]
    pub(crate) stream_type: i32,
    #[prost(message, repeated, tag = "15")]
    pub(crate) request_headers: Vec<Header>,
    #[prost(message, repeated, tag = "16")]
    pub(crate) request_messages: Vec<Any>,
    #[prost(uint32, optional, tag = "17")]
    pub(crate) timeout_ms: Option<u32>,
    #[prost(uint32, tag = "18")]
    pub(crate) request_delay_ms: u32,
    #[prost(message, optional, tag = "19")]
    pub(crate) cancel: Option<Cancel>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Cancel {
    #[prost(oneof = "CancelTiming", tags = "1, 2, 3")]
    pub(crate) timing: Option<CancelTiming>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum CancelTiming {
    #[prost(message, tag = "1")]
    BeforeCloseSend(()),
    #[prost(uint32, tag = "2")]
    AfterCloseSendMs(u32),
    #[prost(uint32, tag = "3")]
    AfterNumResponses(u32),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClientCompatResponse {
    #[prost(string, tag = "1")]
    pub(crate) test_name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) response: Option<ClientResult>,
    #[prost(message, optional, tag = "3")]
    pub(crate) error: Option<ClientError>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClientError {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClientResult {
    #[prost(message, repeated, tag = "1")]
    pub(crate) response_headers: Vec<Header>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) payloads: Vec<Payload>,
    #[prost(message, optional, tag = "3")]
    pub(crate) error: Option<Error>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) response_trailers: Vec<Header>,
}

/// The request of a method with one response.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct UnaryRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) response_definition: Option<UnaryDefinition>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UnaryDefinition {
    #[prost(message, repeated, tag = "1")]
    pub(crate) response_headers: Vec<Header>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) response_data: Bytes,
    #[prost(message, optional, tag = "3")]
    pub(crate) error: Option<Error>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) response_trailers: Vec<Header>,
    #[prost(uint32, tag = "6")]
    pub(crate) response_delay_ms: u32,
}

/// The request of a method with a stream of responses to one request.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) response_definition: Option<StreamDefinition>,
}

/// The request of a method with a stream of requests and one of responses.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BidiRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) response_definition: Option<StreamDefinition>,
    #[prost(bool, tag = "2")]
    pub(crate) full_duplex: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamDefinition {
    #[prost(message, repeated, tag = "1")]
    pub(crate) response_headers: Vec<Header>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) response_data: Vec<Bytes>,
    #[prost(uint32, tag = "3")]
    pub(crate) response_delay_ms: u32,
    #[prost(message, optional, tag = "4")]
    pub(crate) error: Option<Error>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) response_trailers: Vec<Header>,
}

/// The response of every method.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reply {
    #[prost(message, optional, tag = "1")]
    pub(crate) payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(crate) request_info: Option<RequestInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestInfo {
    #[prost(message, repeated, tag = "1")]
    pub(crate) request_headers: Vec<Header>,
    #[prost(int64, optional, tag = "2")]
    pub(crate) timeout_ms: Option<i64>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) requests: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Error {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, optional, tag = "2")]
    pub(crate) message: Option<String>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

/// `google.rpc.Status`, which `grpc-status-details-bin` has.
#[derive(Clone, PartialEq, Message)]
struct GoogleStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

impl Error {
    pub(crate) fn into_status(self, metadata: MetadataMap) -> Status {
        let message = self.message.unwrap_or_default();
        let details = GoogleStatus { code: self.code, message: message.clone(), details: self.details };
        let details = Bytes::from(if details.details.is_empty() { Vec::new() } else { details.encode_to_vec() });
        Status::with_details_and_metadata(Code::from_i32(self.code), message, details, metadata)
    }

    pub(crate) fn of_status(status: &Status) -> Error {
        let details = GoogleStatus::decode(status.details()).unwrap_or_default().details;
        Error { code: status.code() as i32, message: Some(status.message().to_owned()), details }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Those of a binary header are base64.
    #[prost(string, repeated, tag = "2")]
    pub(crate) value: Vec<String>,
}

impl Header {
    pub(crate) fn all(metadata: &MetadataMap) -> Vec<Header> {
        let headers: &HeaderMap = metadata.as_ref();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let of_name = |name: &HeaderName| Header {
            name: name.to_string(),
            value: headers.get_all(name).iter().map(text).collect(),
        };
        headers.keys().map(of_name).collect()
    }

    pub(crate) fn add_all<'a>(headers: impl IntoIterator<Item = &'a Header>, metadata: &mut MetadataMap) {
        let map: &mut HeaderMap = metadata.as_mut();
        for Header { name, value } in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("the suite sends valid names");
            for value in value {
                map.append(&name, HeaderValue::from_bytes(value.as_bytes()).expect("the suite sends valid values"));
            }
        }
    }
}

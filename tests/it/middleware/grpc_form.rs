//! Which requests and responses are gRPC, and what they get that are not.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use throughline::middleware::client::error_for_status;
use throughline::{Cause, ClientLayer, Code, Context, ContextLayer, Error};
use tonic::Status;
use tower::{Layer, ServiceExt, service_fn};

use super::grpc::{METHOD, grpc_request, status_code};
use crate::support::{Traced, text};

/// A handler without gRPC that responds to every request with `status`.
fn plain(
    status: u16,
) -> impl tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone {
    service_fn(move |_: Request<Body>| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        std::future::ready(Ok::<_, Infallible>(response))
    })
}

#[tokio::test]
async fn a_content_type_alone_does_not_make_a_request_grpc() {
    for status in [200, 404, 503] {
        let service = Traced::new("api");
        for path in ["/made/up/0", "/made/up/1", "/made/up/2"] {
            let request = grpc_request(path).body(Body::empty()).unwrap();
            let response = service.internal().layer(plain(status)).oneshot(request).await.unwrap();
            assert_eq!((response.status().as_u16(), response.headers().get("grpc-status")), (status, None));
        }
        for span in service.spans(3).await {
            assert_eq!((span.name.as_ref(), text(&span, "rpc.method"), status_code(&span)), ("POST", None, None));
            assert!(text(&span, "url.path").unwrap().starts_with("/made/up/"));
            assert_eq!(text(&span, "http.request.method"), Some("POST"));
        }
    }
}

#[tokio::test]
async fn a_request_in_another_form_is_not_grpc_even_if_the_response_is_an_error() {
    let forms = [("GET", http::Version::HTTP_11), ("GET", http::Version::HTTP_2), ("POST", http::Version::HTTP_11)];
    for (method, version) in forms {
        let service = Traced::new("api");
        let denied = service_fn(async |_: Request<Body>| {
            let response = Error::new(Code::PermissionDenied, "not for you").to_response().map(Body::from);
            Ok::<_, Infallible>(response)
        });
        let request = grpc_request("/admin/7").method(method).version(version).body(Body::empty()).unwrap();
        let response = service.internal().layer(denied).oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().get("grpc-status")), (403, None));
        drop(response);
        let shed = grpc_request("/admin/7").method(method).version(version).header("grpc-timeout", "0n");
        let never = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let response = service.internal().layer(never).oneshot(shed.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 504);
        drop(response);
        for span in service.spans(2).await {
            assert_eq!((span.name.as_ref(), text(&span, "rpc.system.name")), (method, None));
        }
    }
}

#[tokio::test]
async fn a_response_without_a_grpc_status_has_the_code_of_grpcs_table() {
    for (status, code) in
        [(404, Code::Unimplemented), (400, Code::Internal), (504, Code::Unavailable), (409, Code::Unknown)]
    {
        let peer = plain(status);
        for layer in [ClientLayer::internal(), ClientLayer::external()] {
            let (caller, reader) = (Traced::new("api"), Traced::new("api"));
            for (traced, is_read) in [(&caller, false), (&reader, true)] {
                let mut request = grpc_request(METHOD).body(Body::empty()).unwrap();
                request.extensions_mut().insert(Context::background().with_tracer(traced.telemetry.tracer()));
                let response = layer.layer(peer.clone()).oneshot(request).await.unwrap();
                if is_read {
                    assert_eq!(error_for_status(response).await.unwrap_err().code(), code, "{status}");
                } else {
                    drop(response);
                }
                let span = traced.span().await;
                assert_eq!((status_code(&span), text(&span, "error.type")), (Some(code.as_str()), Some(code.as_str())));
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_is_not_handled_gets_a_response_of_its_protocol() {
    let never = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let (layer, process) = (ContextLayer::internal(), Context::background().with_cancel());
    process.cancel_with(Cause::Shutdown);
    let ask = async |layer: &ContextLayer, content_type: &str, grpc_timeout: &str| {
        let mut request = grpc_request(METHOD).header("grpc-timeout", grpc_timeout);
        request.headers_mut().unwrap().insert("content-type", content_type.parse().unwrap());
        let (head, body) = layer.layer(never).oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_parts();
        (head, body.collect().await.unwrap().to_bytes())
    };
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
        let (head, body) = ask(&layer, content_type, "0n").await;
        assert_eq!(
            (head.status.as_u16(), &head.headers["content-type"], body.len()),
            (200, &"application/grpc".parse().unwrap(), 0)
        );
        assert_eq!(Status::from_header_map(&head.headers).unwrap().code(), tonic::Code::DeadlineExceeded);
    }
    let (head, _) = ask(&layer.clone().base(&process), "application/grpc", "1H").await;
    let error = Error::from_grpc_status(Status::from_header_map(&head.headers).unwrap());
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
    for content_type in ["application/json", "application/grpc-web"] {
        let (head, body) = ask(&layer, content_type, "0n").await;
        assert_eq!((head.status.as_u16(), body.is_empty()), (504, false), "{content_type}");
    }
    assert_eq!(layer.shed_count(), 6);
}

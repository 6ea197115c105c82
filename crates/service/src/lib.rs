//! Services that are their handlers, and clients of one line, on any transport.
//!
//! | | |
//! |---|---|
//! | [`Service`] | a named service: routes, handlers, layers, health and statistics |
//! | [`Services`] | several of them in one process |
//! | [`Json`] | a JSON body, whose errors are a [`throughline::Error`] |
//! | [`Stats`], [`Health`] | what a service counts, and whether it is ready |
//! | [`Client`] | calls a service: retries, balancing, a circuit breaker per instance: [`client`] |
//! | [`call_all`](client::call_all) | several calls at the same time |
//! | [`Authorize`] | a rule that decides who may call a route or a service |
//! | [`BreakerLayer`] | refuses calls to a callee that fails: [`breaker`] |
//! | [`config`] | settings that change while a service runs |
//!
//! Routing, extractors and handlers are those of [`axum`], which is re-exported in the version that
//! this crate uses.
//!
//! # Examples
//! ```
//! use bytes::Bytes;
//! use http::{Method, Request, header};
//! use throughline::{Context, Ctx, Error};
//! use throughline_service::{Json, Service};
//! use throughline_transport::Transport;
//!
//! async fn double(Ctx(_): Ctx, Json(number): Json<u32>) -> Result<Json<u32>, Error> {
//!     Ok(Json(number * 2))
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let transport = Transport::in_process();
//! let process = Context::background().with_cancel();
//! let service = Service::new("numbers").route("double", double);
//! let serving = service.serve_until(&transport, &process);
//!
//! let call = async {
//!     let request = Request::builder().method(Method::POST).uri("/double");
//!     let request = request.header(header::CONTENT_TYPE, "application/json").body(Bytes::from("21"))?;
//!     let response = transport.send(&Context::background(), "numbers", request).await?;
//!     assert_eq!(response.body(), "42");
//!     process.cancel();
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! };
//! let (served, called) = tokio::join!(serving, call);
//! served?;
//! called
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod authorize;
pub mod breaker;
pub mod client;
pub mod config;
mod health;
mod json;
mod service;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub mod sqlite;
mod stats;

pub use authorize::{Authorize, Authorized, Decision};
pub use axum;
pub use breaker::{Breaker, BreakerLayer, BreakerSettings, BreakerState};
pub use client::Client;
pub use health::{Health, Readiness};
pub use json::Json;
pub use service::{Service, Services, layer_error};
pub use stats::{DurationStats, ListenerStats, RouteStats, ServiceStats, Stats};

#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../../../docs/guide/configuration.md")]
struct GuideConfiguration;

#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../../../docs/guide/services.md")]
struct GuideServices;

#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../../../docs/guide/clients.md")]
struct GuideClients;

#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../../docs/guide/storage.md")]
struct GuideStorage;

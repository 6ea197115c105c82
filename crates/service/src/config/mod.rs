//! Settings that change while the program runs.
//!
//! - [`Config`]: a type of the user's, from a TOML file and the environment, watched.
//! - [`Watched`]: a value that changes, and those that are derived from it.
//! - [`ServiceSettings`], [`ClientSettings`]: the settings of this library.
//!
//! docs/guide/configuration.md shows a complete file.
//!
//! # Why not a crate for layered configuration
//! `config` and `figment` merge their sources before serde reads them. A value that does not fit
//! its type then has no line and no column. Here the file's own parser reads the merged table, so
//! that each error has the position in the file, or the name of the variable.

mod follow;
mod settings;
mod text;
mod watched;

#[cfg(feature = "config")]
mod builder;
#[cfg(feature = "config")]
mod directories;
#[cfg(feature = "config")]
mod environment;
#[cfg(feature = "config")]
mod error;
#[cfg(feature = "config")]
mod file;
#[cfg(feature = "config")]
mod handle;
#[cfg(feature = "config")]
mod loader;
#[cfg(feature = "config")]
mod parse;
#[cfg(feature = "config")]
mod watcher;

#[cfg(feature = "config")]
#[cfg_attr(docsrs, doc(cfg(feature = "config")))]
pub use self::{builder::ConfigBuilder, error::ConfigError, handle::Config};
pub use follow::Following;
pub use settings::{
    BackoffSettings, ClientBreakerSettings, ClientRouteSettings, ClientSettings, RetrySettings, RouteSettings,
    ServiceSettings,
};
pub use text::duration;
pub use watched::Watched;

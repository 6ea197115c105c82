mod boundaries;
mod client;
mod errors;
mod life;
mod redirects;
mod server;
mod trust;
mod wire;

mod boundaries;
mod client;
mod errors;
mod life;
mod server;
mod wire;

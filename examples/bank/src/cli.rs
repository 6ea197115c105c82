//! The command line of the program.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use crate::scenario::Scenario;

/// A card payment over eleven services that talk HTTP and events, shown as one trace.
#[derive(Debug, Parser)]
#[command(name = "bank")]
pub struct Cli {
    /// The command. None: the scenario ok.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play one of the scenarios and show its trace; without a command: ok.
    Scenario {
        /// The scenario.
        name: Scenario,
    },
    /// Keep the bank open until Ctrl-C or SIGTERM.
    Serve {
        /// The address of the API, as IP:PORT; port 0 takes any free port.
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7000")]
        listen: SocketAddr,
    },
}

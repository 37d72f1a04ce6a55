//! The `paxos-commit` binary: runs replicas, makes and changes clusters, shows and ends what hangs.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}

//! The `paxos-commit` binary: runs replicas, makes and changes clusters, shows and ends what hangs.

mod cli;

use std::process::ExitCode;

use clap::Parser;

// What one thread has decoded another one saves and frees: the system's allocator pays for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}

//! The `paxos-commit` binary.

fn main() {}

//! Coverage-guided fuzzing of every decoder, by hand. It takes Linux on x86-64 and a C++ compiler,
//! and the stable toolchain does:
//!
//! ```text
//! export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
//!   -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
//! export CARGO_TARGET_DIR=target/fuzz
//! cargo test --target x86_64-unknown-linux-gnu --no-default-features --features cluster,embedded \
//!   --test fuzz --no-run                                               # prints the path of PROGRAM
//! FUZZ_TARGET=frames PROGRAM WORK tests/corpus/frames -max_total_time=360 -timeout=5
//! FUZZ_TARGET=frames PROGRAM -set_cover_merge=1 -use_counters=0 -max_len=512 SMALLER WORK
//! ```
//!
//! `FUZZ_TARGET` is one of `paxos_commit::fuzzing::TARGETS`; WORK is a folder for what it finds. An
//! input that breaks something is written to the working directory; keep it in
//! `tests/corpus/TARGET/` when it is mended. `cargo test --lib fuzzing` runs the same targets over
//! that corpus.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod guided {
    use std::sync::LazyLock;

    use paxos_commit::fuzzing::{TARGETS, Target, memory_max};

    static TARGET: LazyLock<Target> = LazyLock::new(|| {
        let names = TARGETS.map(|target| target.name);
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("FUZZ_TARGET: expected one of {names:?}, got {name:?}"))
    });

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
        let target = *TARGET;
        let held = allocation_counter::measure(|| {
            (target.run)(bytes);
        });
        let most = memory_max(bytes.len());
        assert!(held.bytes_max <= most, "{} of {most} bytes", held.bytes_max);
    });
}

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("Built without --cfg fuzzing: the head of tests/fuzz/main.rs has the command.");
    std::process::exit(2);
}

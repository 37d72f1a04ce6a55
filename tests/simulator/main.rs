//! The simulator as a judge.

mod sim;

use sim::plan::Weather;
use sim::{Options, run};

#[test]
fn smoke() {
    for seed in 0..200 {
        if let Err(failure) = run(seed, Weather::Swarm, Options::default()) {
            panic!("{failure}");
        }
    }
}

//! Random bits from the operating system, for everything that must be unique or secret.

use ring::rand::{SecureRandom, SystemRandom};

/// 64 random bits.
pub(crate) fn draw() -> u64 {
    let mut bytes = [0; 8];
    draw_into(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// Fills `bytes` with random ones.
pub(crate) fn draw_into(bytes: &mut [u8]) {
    SystemRandom::new()
        .fill(bytes)
        .expect("the operating system gives random bytes; without them no id is safe");
}

//! Where randomness comes from: run ids, guids, jitter. Injected, so that a simulated run can be replayed from its seed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers. Not for secrets.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// The next number.
    fn next_u64(&self) -> u64;
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, good enough for ids and jitter, and the same on every machine.
#[derive(Debug)]
pub struct SplitMix(AtomicU64);

impl SplitMix {
    /// The same seed gives the same numbers.
    pub fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Seeded by the kernel.
    pub fn system() -> Self {
        let mut seed = [0u8; 8];
        // An interrupted read leaves zeros; the process id keeps two runs apart even then.
        let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
        Self::seeded(u64::from_le_bytes(seed) ^ u64::from(std::process::id()).rotate_left(32))
    }
}

impl Entropy for SplitMix {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_sequence() {
        let rng = SplitMix::seeded(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }
}

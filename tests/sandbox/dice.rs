//! Chance that can be repeated: the same seed gives the same rolls on every machine and in every release.
//! Not a source of secrets.

use std::sync::atomic::{AtomicU64, Ordering};

/// Rolls for concurrent requests: the n-th roll depends on the seed and n alone.
#[derive(Debug)]
pub(super) struct Dice {
    seed: u64,
    taken: AtomicU64,
}

impl Dice {
    /// Dice that repeat themselves for the same seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed: mix(seed), taken: AtomicU64::new(0) }
    }

    /// The next roll.
    pub(super) fn roll(&self) -> Roll {
        Roll::new(self.seed ^ mix(self.taken.fetch_add(1, Ordering::Relaxed)))
    }
}

/// A stream of numbers (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Roll(u64);

impl Roll {
    /// A stream that depends on `seed` alone.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        let bits = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        bits
    }

    /// A number in `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True in `rate` of the cases. A rate of 0 costs nothing and takes nothing from the stream.
    pub(super) fn chance(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.unit() < rate
    }

    /// A whole number in `low..=high` (`low` if the bounds are the wrong way round).
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low { low } else { low + self.bits() % (high - low + 1) }
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there is nothing to choose from.
    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.between(0, choices.len() as u64 - 1) as usize]
    }
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads a number over all 64 bits (the output function of SplitMix64).
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_rolls_the_same() {
        let (a, b) = (Dice::new(7), Dice::new(7));
        let rolled = |dice: &Dice| (0..50).map(|_| dice.roll().between(0, 999)).collect::<Vec<_>>();
        assert_eq!(rolled(&a), rolled(&b));
        assert_ne!(rolled(&a), rolled(&Dice::new(8)));
    }

    #[test]
    fn chance_comes_out_near_its_rate() {
        let mut roll = Roll::new(1);
        let hits = (0..100_000).filter(|_| roll.chance(0.02)).count();
        assert!((1_800..2_200).contains(&hits), "{hits}");
        assert!(!roll.chance(0.0));
    }
}

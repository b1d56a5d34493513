//! The one retry loop: how often, how long between, and when to give up.
//!
//! Promises: only what says of itself that later may help is tried again; the waits grow up to a cap; no wait begins
//! that would end beyond the budget. It knows nothing about what is tried, and does not cut a try short: whoever runs
//! one gives it a time limit.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::error::{Error, Kind, Retry};

/// How often and how long apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Tries in all, the first one included; 0 counts as 1.
    pub tries: u32,
    /// The wait before the second try.
    pub first: Duration,
    /// What each further wait is multiplied by; less than 1 counts as 1.
    pub factor: u32,
    /// No wait is longer.
    pub cap: Duration,
    /// How much of a wait is left to chance, in percent of it. Up to 50 the waits still grow while they double.
    pub jitter_percent: u32,
    /// No wait begins that would end later than this after the beginning of the first try.
    pub budget: Option<Duration>,
}

impl Default for Policy {
    /// Three tries, 1 s and 2 s apart, half of it left to chance so that thirty services that lost the same store
    /// don't come back to it at once.
    fn default() -> Self {
        Self {
            tries: 3,
            first: Duration::from_secs(1),
            factor: 2,
            cap: Duration::from_secs(30),
            jitter_percent: 50,
            budget: None,
        }
    }
}

impl Policy {
    /// One try.
    pub const ONCE: Self = Self {
        tries: 1,
        first: Duration::ZERO,
        factor: 1,
        cap: Duration::ZERO,
        jitter_percent: 0,
        budget: None,
    };

    /// The waits between the tries, one fewer than tries, ending early where their sum would exceed the budget.
    pub fn delays<'a>(&self, entropy: &'a dyn Entropy) -> Delays<'a> {
        Delays {
            policy: *self,
            entropy,
            left: self.tries.saturating_sub(1),
            base: self.first.min(self.cap),
            total: Duration::ZERO,
        }
    }
}

/// See [`Policy::delays`].
#[derive(Debug)]
pub struct Delays<'a> {
    policy: Policy,
    entropy: &'a dyn Entropy,
    left: u32,
    base: Duration,
    total: Duration,
}

impl Iterator for Delays<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let chance = self.base.as_nanos() * u128::from(self.policy.jitter_percent.min(100)) / 100;
        // More than 584 years of nanoseconds don't fit 64 bits; what is beyond is not left to chance.
        let chance = u128::from(u64::try_from(chance).unwrap_or(u64::MAX));
        let off = (chance * u128::from(self.entropy.next_u64())) >> 64;
        let delay = self
            .base
            .saturating_sub(Duration::from_nanos(u64::try_from(off).unwrap_or(u64::MAX)));
        let total = self.total.saturating_add(delay);
        if self.policy.budget.is_some_and(|budget| total > budget) {
            self.left = 0;
            return None;
        }
        self.total = total;
        self.base = self
            .base
            .saturating_mul(self.policy.factor.max(1))
            .min(self.policy.cap);
        Some(delay)
    }
}

/// An error that knows whether the same call may succeed later.
pub trait Retryable {
    /// Whether to try again.
    fn is_retryable(&self) -> bool;
}

impl<K: Kind> Retryable for Error<K> {
    fn is_retryable(&self) -> bool {
        self.should_retry() == Retry::Later
    }
}

/// Why there was no further try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GaveUp {
    /// Trying again can't help.
    NotRetryable,
    /// All tries are used up.
    TriesUsed,
    /// The next try would have begun after the budget's end.
    BudgetUsed,
    /// Cancelled while waiting for the next try.
    Cancelled,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRetryable => "trying again can't help",
            Self::TriesUsed => "all tries are used up",
            Self::BudgetUsed => "its time is used up",
            Self::Cancelled => "interrupted",
        })
    }
}

/// The last error, and why it was the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<E> {
    /// The error of the last try.
    pub error: E,
    /// How many tries there were.
    pub tries: u32,
    /// Why there was no further one.
    pub why: GaveUp,
}

/// A try that failed and will be followed by another one.
#[derive(Debug)]
pub struct Retrying<'a, E> {
    /// Which try it was; the first is 1.
    pub attempt: u32,
    /// Its error.
    pub error: &'a E,
    /// The wait until the next one.
    pub delay: Duration,
}

/// Tries until success, an error that says no, or the policy's end. `attempt` is called with 1, 2, …; `on_retry`
/// hears of every failure that is not the last one.
///
/// # Errors
/// The last try's error, with the reason why it was the last.
pub async fn retry<T, E, F, Fut>(
    policy: &Policy,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    cancel: &CancellationToken,
    mut attempt: F,
    mut on_retry: impl FnMut(Retrying<'_, E>),
) -> Result<T, Failure<E>>
where
    E: Retryable,
    F: FnMut(u32) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let begin = clock.monotonic();
    let mut delays = policy.delays(entropy);
    let mut tries = 0_u32;
    loop {
        tries = tries.saturating_add(1);
        let error = match attempt(tries).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let gave_up = |error, why| Err(Failure { error, tries, why });
        if !error.is_retryable() {
            return gave_up(error, GaveUp::NotRetryable);
        }
        let Some(delay) = delays.next() else {
            let used = tries >= policy.tries.max(1);
            return gave_up(
                error,
                if used {
                    GaveUp::TriesUsed
                } else {
                    GaveUp::BudgetUsed
                },
            );
        };
        // The tries themselves take time too.
        let spent = clock.monotonic().saturating_sub(begin);
        if policy
            .budget
            .is_some_and(|budget| spent.saturating_add(delay) > budget)
        {
            return gave_up(error, GaveUp::BudgetUsed);
        }
        if cancel.is_cancelled() {
            return gave_up(error, GaveUp::Cancelled);
        }
        on_retry(Retrying {
            attempt: tries,
            error: &error,
            delay,
        });
        tokio::select! {
            biased;
            () = cancel.cancelled() => return gave_up(error, GaveUp::Cancelled),
            () = clock.sleep(delay) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    use crate::entropy::SplitMix;
    use crate::error::{StoreError, StoreKind};
    use proptest::prelude::*;

    /// A clock that only sleep moves.
    #[derive(Debug, Default)]
    struct Hand(Mutex<Duration>);

    impl Hand {
        fn pass(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    #[async_trait::async_trait]
    impl Clock for Hand {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        async fn sleep(&self, time: Duration) {
            self.pass(time);
        }
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let ms = |range| proptest::prop_oneof![range, Just(0)].prop_map(Duration::from_millis);
        (
            0..12_u32,
            ms(0..5_000_u64),
            0..5_u32,
            ms(0..60_000),
            0..120_u32,
            proptest::option::of(ms(0..90_000)),
        )
            .prop_map(|(tries, first, factor, cap, jitter_percent, budget)| Policy {
                tries,
                first,
                factor,
                cap,
                jitter_percent,
                budget,
            })
    }

    fn busy() -> StoreError {
        Error::new(StoreKind::Busy, "busy")
    }

    proptest! {
        #[test]
        fn waits_stay_within_tries_cap_and_budget(policy in policy(), seed in any::<u64>()) {
            let delays: Vec<Duration> = policy.delays(&SplitMix::seeded(seed)).collect();
            prop_assert!(delays.len() < policy.tries.max(1) as usize);
            prop_assert!(delays.iter().all(|delay| *delay <= policy.cap));
            if let Some(budget) = policy.budget {
                prop_assert!(delays.iter().sum::<Duration>() <= budget);
            } else {
                prop_assert_eq!(delays.len(), policy.tries.saturating_sub(1) as usize);
            }
        }

        #[test]
        fn waits_grow_up_to_the_cap(policy in policy(), seed in any::<u64>(), jitter_percent in 0..=50_u32) {
            let policy = Policy { factor: policy.factor.max(2), jitter_percent, ..policy };
            let plain: Vec<Duration> =
                Policy { jitter_percent: 0, ..policy }.delays(&SplitMix::seeded(0)).collect();
            prop_assert!(plain.is_sorted());
            let uncapped = plain.iter().take_while(|delay| **delay < policy.cap).count();
            let delays: Vec<Duration> = policy.delays(&SplitMix::seeded(seed)).take(uncapped).collect();
            prop_assert!(delays.is_sorted(), "{:?}", delays);
        }

        #[test]
        fn no_wait_ends_beyond_the_budget(
            policy in policy(), seed in any::<u64>(), cost in 0..20_000_u64, enough in 1..15_u32,
        ) {
            let clock = Hand::default();
            let mut waited_until = Duration::ZERO;
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let result = runtime.block_on(retry(
                &policy,
                &clock,
                &SplitMix::seeded(seed),
                &CancellationToken::new(),
                |attempt| {
                    clock.pass(Duration::from_millis(cost));
                    std::future::ready(if attempt >= enough { Ok(attempt) } else { Err(busy()) })
                },
                |retrying| waited_until = clock.monotonic() + retrying.delay,
            ));
            if let Some(budget) = policy.budget {
                prop_assert!(waited_until <= budget);
            }
            match result {
                Ok(tries) => prop_assert!(tries == enough && tries <= policy.tries.max(1)),
                Err(failure) => match failure.why {
                    GaveUp::TriesUsed => prop_assert_eq!(failure.tries, policy.tries.max(1)),
                    why => prop_assert!(why == GaveUp::BudgetUsed && policy.budget.is_some()),
                },
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_help_is_not_tried_again() {
        let result: Result<(), _> = retry(
            &Policy::default(),
            &Hand::default(),
            &SplitMix::seeded(1),
            &CancellationToken::new(),
            |_| std::future::ready(Err(Error::new(StoreKind::Corrupt, "broken"))),
            |_| panic!("no retry"),
        )
        .await;
        let failure = result.unwrap_err();
        assert_eq!((failure.tries, failure.why), (1, GaveUp::NotRetryable));
    }

    #[tokio::test]
    async fn cancellation_ends_the_wait() {
        let cancel = CancellationToken::new();
        let mut heard = 0;
        let result: Result<(), _> = retry(
            &Policy::default(),
            &crate::clock::SystemClock::new(),
            &SplitMix::seeded(1),
            &cancel,
            |_| std::future::ready(Err(busy())),
            |_| {
                heard += 1;
                cancel.cancel();
            },
        )
        .await;
        assert_eq!((result.unwrap_err().why, heard), (GaveUp::Cancelled, 1));
    }

    #[test]
    fn the_default_waits_are_spread() {
        let at = |seed| {
            Policy::default()
                .delays(&SplitMix::seeded(seed))
                .collect::<Vec<_>>()
        };
        assert_ne!(at(1), at(2));
        assert!(at(1).iter().all(|d| (500..=2000).contains(&d.as_millis())));
    }

    #[test]
    fn extreme_policies_do_not_overflow() {
        let policy = Policy {
            tries: u32::MAX,
            first: Duration::MAX,
            factor: u32::MAX,
            cap: Duration::MAX,
            jitter_percent: u32::MAX,
            budget: Some(Duration::MAX),
        };
        assert!(policy.delays(&SplitMix::seeded(7)).take(3).count() <= 3);
    }
}

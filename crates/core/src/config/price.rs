//! What a store takes for what it keeps and hands out.
//!
//! Prices are for 10^12 bytes, which is what B2 calls a terabyte. S3's gigabyte has 2^30 bytes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::decode::{At, Decode};
use super::diagnostic::{Extra, Sink};
use super::file::PriceFile;
use super::location::RepoLocation;
use super::node::{Node, Value};
use super::values::value_schema;

/// Parts of a unit of money that are told apart.
const PARTS: u64 = 1_000_000;
/// The most that is taken for a price; beyond it is a slip.
const MOST: u64 = 1_000_000;
const DEFAULT_CURRENCY: &str = "USD";

/// An amount of money, in millionths of its currency's unit. Serialized as a number of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(u64);

impl Amount {
    /// So many millionths.
    pub const fn millionths(count: u64) -> Self {
        Self(count)
    }

    /// What so many bytes cost at this price for 10^12 of them, rounded down to a millionth.
    #[must_use]
    pub fn for_bytes(self, bytes: u64) -> Self {
        let cost = u128::from(self.0) * u128::from(bytes) / 1_000_000_000_000;
        Self(u64::try_from(cost).unwrap_or(u64::MAX))
    }

    /// As a number of units, for machines.
    pub fn units(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no price has 16 digits")]
        let parts = self.0 as f64;
        parts / 1e6
    }
}

impl std::fmt::Display for Amount {
    /// With two places: `0.60`. What is less than half a hundredth, and not nothing, is `<0.01`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hundredths = self.0.saturating_add(PARTS / 200) / (PARTS / 100);
        if hundredths == 0 && self.0 > 0 {
            return f.write_str("<0.01");
        }
        write!(f, "{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.units())
    }
}

/// What a store takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Price {
    /// For keeping 10^12 bytes for a month.
    pub storage: Amount,
    /// For handing out 10^12 bytes.
    pub download: Amount,
    /// As it is written behind an amount.
    pub currency: String,
}

/// A price from a list, for who says none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The price.
    #[serde(flatten)]
    pub price: Price,
    /// Whose list, and of when.
    pub list: &'static str,
}

impl Listed {
    /// What the list of a repository's store says; none of a store whose prices aren't known. By the host's name alone: regions and
    /// discounts differ, and lists change.
    pub fn of(repository: &RepoLocation) -> Option<Self> {
        let RepoLocation::S3(location) = repository else {
            return None;
        };
        let host = location.host();
        let of = |domain: &str| {
            let below = host.strip_suffix(domain);
            below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
        };
        let listed = |storage, download, list| Self {
            price: Price {
                storage: Amount(storage),
                download: Amount(download),
                currency: DEFAULT_CURRENCY.to_owned(),
            },
            list,
        };
        if of("backblazeb2.com") {
            // 6 USD a TB and month; downloads are free up to three times a month what is stored, and 0.01 USD a GB beyond.
            return Some(listed(
                6 * PARTS,
                0,
                "B2 pay-as-you-go, 2025-01; downloads beyond three times a month what is stored are 10 USD",
            ));
        }
        if of("amazonaws.com") {
            // 0.023 USD and 0.09 USD a GB of 2^30 bytes.
            return Some(listed(
                21_420_419,
                83_819_031,
                "S3 Standard in us-east-1, 2025-01, without requests; the first 100 GB of download a month are free",
            ));
        }
        None
    }
}

/// A price as it is written: a number of units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AmountFile(pub(crate) Amount);
value_schema!(AmountFile, { "type": "number", "minimum": 0, "maximum": 1_000_000 });

impl Decode for AmountFile {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let units = match &node.value {
            Value::Integer(Some(units)) => u64::try_from(*units)
                .ok()
                .filter(|units| *units <= MOST)
                .map(|units| units * PARTS),
            Value::Float(units) => millionths(*units),
            Value::Integer(None) => None,
            _ => {
                return super::decode::wrong_type(
                    node,
                    at,
                    sink,
                    "an amount",
                    Some("write a number without quotes, as in 6.95".to_owned()),
                );
            }
        };
        if units.is_none() {
            let message = format!("`{at}` is out of range");
            sink.error(
                at,
                &node.span,
                message,
                Extra::hint("a price for 10^12 bytes, from 0 to a million"),
            );
        }
        Some(Self(Amount(units?)))
    }
}

/// A number as millionths, rounded.
fn millionths(units: f64) -> Option<u64> {
    if !(0.0..=1e6).contains(&units) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 10^12"
    )]
    let parts = (units * 1e6).round() as u64;
    Some(parts)
}

/// The price, where one is declared.
pub(crate) fn price(file: Option<&PriceFile>) -> Option<Price> {
    let file = file?;
    Some(Price {
        storage: file.storage.0.as_ref()?.0.0,
        download: file.download.value().map_or(Amount::default(), |amount| amount.0),
        currency: match file.currency.value() {
            Some(word) => word.0.clone(),
            None => DEFAULT_CURRENCY.to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Location;

    fn at(endpoint: &str) -> Option<Listed> {
        Listed::of(&RepoLocation::S3(S3Location {
            endpoint: endpoint.to_owned(),
            bucket: "b".to_owned(),
            prefix: String::new(),
        }))
    }

    /// The often quoted "6 dollars a month for 100 GB" is the price of ten times as much.
    #[test]
    fn a_hundred_gigabytes_in_b2_are_sixty_cents() {
        let b2 = at("https://s3.us-west-004.backblazeb2.com").unwrap().price;
        assert_eq!(b2.storage.for_bytes(100_000_000_000).to_string(), "0.60");
        assert_eq!(b2.storage.for_bytes(1_000_000_000_000).to_string(), "6.00");
    }

    #[test]
    fn s3_bills_gigabytes_of_two_to_the_thirtieth() {
        let s3 = at("https://s3.eu-central-1.amazonaws.com:443").unwrap().price;
        let gib = 1_u64 << 30;
        assert_eq!(s3.storage.for_bytes(1000 * gib).to_string(), "23.00");
        assert_eq!(s3.download.for_bytes(1000 * gib).to_string(), "90.00");
    }

    #[test]
    fn only_the_stores_own_hosts_have_its_prices() {
        assert_eq!(at("https://backblazeb2.com.example.org"), None);
        assert_eq!(at("https://notamazonaws.com"), None);
        assert_eq!(at("http://127.0.0.1:9000"), None);
        assert!(at("https://backblazeb2.com").is_some());
        assert_eq!(Listed::of(&RepoLocation::Directory("/srv/r".into())), None);
    }

    #[test]
    fn amounts_are_written_so_that_nothing_costs_nothing() {
        let written = |parts| Amount(parts).to_string();
        assert_eq!(written(0), "0.00");
        assert_eq!(written(4_999), "<0.01");
        assert_eq!(written(5_000), "0.01");
        assert_eq!(written(1_234_999), "1.23");
        assert_eq!(written(1_235_000), "1.24");
        assert_eq!(Amount(u64::MAX).for_bytes(u64::MAX), Amount(u64::MAX));
    }

    #[test]
    fn prices_that_are_none_are_refused() {
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e6 + 1.0] {
            assert_eq!(millionths(odd), None, "{odd}");
        }
        assert_eq!(millionths(6.95), Some(6_950_000));
    }
}

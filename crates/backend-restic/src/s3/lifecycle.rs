//! A bucket's lifecycle rules: which ones would eat a repository, and which ones are safe.
//!
//! A rule that deletes or archives by age knows nothing of deduplication: the packs of an old backup are those of today's, and the
//! repository's configuration and keys are the oldest objects of all. So only what is no longer part of the repository may go by
//! a rule: versions that restic has replaced or deleted, and uploads that were never finished.

use std::fmt;
use std::time::Duration;

use object_store::Error as StoreError;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::listing::is_document;
use super::{CredentialsFrom, S3Place};
use crate::error::{EngineError, Result};
use crate::store::{sort, told};

/// The whole answer has to be there by then.
const PATIENCE: Duration = Duration::from_secs(45);

/// Classes whose objects are read at once, as restic needs it. Of what isn't known here, that isn't known either.
const READ_AT_ONCE: [&str; 6] = [
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
];

/// What a store says of its bucket's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The rules that are in force, of those that are about current objects.
    Rules(Vec<Rule>),
    /// It can't or doesn't want to say.
    Untold {
        /// Why.
        why: String,
    },
}

/// A rule that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, or its number.
    pub name: String,
    /// It is about keys that begin so.
    prefix: String,
    /// Only about objects with certain tags. restic sets none.
    tagged: bool,
    /// What it does to current objects.
    acts: Vec<Act>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Deletes { when: String },
    Moves { when: String, class: String },
}

/// What a rule would do to a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Harm {
    /// The rule.
    pub rule: String,
    /// What it does.
    pub does: String,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lifecycle rule {:?} {}", self.rule, self.does)
    }
}

impl Rule {
    /// What it would do to the repository whose keys begin with this prefix; nothing where it leaves that alone.
    fn harms(&self, prefix: &str) -> Vec<Harm> {
        let whole = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let meets = self.prefix.starts_with(&whole) || whole.starts_with(&self.prefix);
        // Locks live for minutes.
        let only_locks = self.prefix.starts_with(&format!("{whole}locks/"));
        if !meets || only_locks || self.tagged {
            return Vec::new();
        }
        let what = match self.prefix.as_str() {
            "" => "every object of the bucket".to_owned(),
            prefix => format!("every object below {prefix:?}"),
        };
        let of = |act: &Act| match act {
            Act::Deletes { when } => Some(format!("deletes {what} {when}")),
            Act::Moves { class, .. } if READ_AT_ONCE.contains(&class.as_str()) => None,
            Act::Moves { when, class } => Some(format!(
                "moves {what} to {class} {when}, where it can't be read at once"
            )),
        };
        let named = |does| Harm {
            rule: self.name.clone(),
            does,
        };
        self.acts.iter().filter_map(of).map(named).collect()
    }
}

/// The rules that would eat the repository at this place.
pub fn harms(rules: &[Rule], place: &S3Place) -> Vec<Harm> {
    rules.iter().flat_map(|rule| rule.harms(&place.prefix)).collect()
}

/// Asks the store for its bucket's rules.
///
/// # Errors
/// What keeps it from being asked: a wrong key, no bucket, no answer.
pub async fn ask(place: &S3Place, credentials: &CredentialsFrom) -> Result<Answer> {
    let asked = tokio::time::timeout(PATIENCE, get(place, credentials));
    let (status, body) = asked.await.unwrap_or_else(|_| {
        Err(EngineError::Unreachable {
            location: place.location(),
            detail: format!("no answer within {PATIENCE:?}"),
        })
    })?;
    if status == 200 {
        return rules_of(&body)
            .map(Answer::Rules)
            .map_err(|detail| EngineError::Unreadable {
                what: format!("the lifecycle rules of {}", place.bucket),
                detail,
            });
    }
    let (code, words) = told(status, &body);
    match (status, code.as_str()) {
        (404, "NoSuchLifecycleConfiguration") => Ok(Answer::Rules(Vec::new())),
        (403, "AccessDenied") => Ok(Answer::Untold {
            why: format!("the key may not read them (`s3:GetLifecycleConfiguration`): {words}"),
        }),
        (501 | 405, _) | (400, "NotImplemented") => Ok(Answer::Untold {
            why: format!("the store doesn't tell them: {words}"),
        }),
        _ => Err(failed(place, &answer_error(status, &body))),
    }
}

fn answer_error(status: u16, body: &str) -> StoreError {
    StoreError::Generic {
        store: "S3",
        source: format!("status code: {status}: {body}").into(),
    }
}

fn failed(place: &S3Place, error: &StoreError) -> EngineError {
    sort("read", "the lifecycle rules", &place.location(), error)
}

/// A signed request for the rules.
async fn get(place: &S3Place, credentials: &CredentialsFrom) -> Result<(u16, String)> {
    let key = credentials.read()?;
    let transport = |error: Box<dyn std::error::Error + Send + Sync>| {
        let error = StoreError::Generic {
            store: "S3",
            source: error,
        };
        failed(place, &error)
    };
    let client = ReqwestConnector::default()
        .connect(&super::options(place)?)
        .map_err(|error| transport(Box::new(error)))?;
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    let address = format!(
        "{}/{}?lifecycle",
        place.endpoint.trim_end_matches('/'),
        place.bucket
    );
    *request.uri_mut() = address.parse().map_err(|error| EngineError::Invalid {
        detail: format!("{}: {error}", place.location()),
    })?;
    let credential = AwsCredential {
        key_id: key.access_key_id.clone(),
        secret_key: key.secret.to_string(),
        token: (!key.token.is_empty()).then(|| key.token.to_string()),
    };
    AwsAuthorizer::new(&credential, "s3", &place.region)
        .try_authorize(&mut request, None)
        .map_err(|error| transport(Box::new(error)))?;
    let answer = client
        .execute(request)
        .await
        .map_err(|error| transport(Box::new(error)))?;
    let status = answer.status().as_u16();
    let body = answer
        .into_body()
        .bytes()
        .await
        .map_err(|error| transport(Box::new(error)))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(rename = "Rule", default)]
    rules: Vec<RuleElement>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RuleElement {
    #[serde(rename = "ID", default)]
    id: String,
    status: String,
    /// Where rules of the first version have it.
    #[serde(default)]
    prefix: String,
    filter: Option<Filter>,
    expiration: Option<When>,
    #[serde(rename = "Transition", default)]
    transitions: Vec<When>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Filter {
    prefix: String,
    tag: Option<Tag>,
    and: Option<And>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct And {
    prefix: String,
    #[serde(rename = "Tag")]
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
struct Tag {}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct When {
    days: Option<String>,
    date: Option<String>,
    storage_class: Option<String>,
}

impl When {
    /// None where it is about no current object: an expiration of delete markers has neither days nor date.
    fn words(&self) -> Option<String> {
        match (&self.days, &self.date) {
            (Some(days), _) => Some(format!("that is {days} days old")),
            (None, Some(date)) => Some(format!("on {date}")),
            (None, None) => None,
        }
    }
}

fn rules_of(body: &str) -> Result<Vec<Rule>, String> {
    // The parser takes any element for one without rules.
    if !is_document(body.as_bytes(), "LifecycleConfiguration") {
        return Err("what answers is no lifecycle configuration".to_owned());
    }
    let read: Configuration =
        quick_xml::de::from_str(body).map_err(|error| crate::words::plain(&error.to_string()))?;
    let mut rules = Vec::new();
    for (number, element) in read.rules.into_iter().enumerate() {
        if element.status != "Enabled" {
            continue;
        }
        let filter = element.filter.unwrap_or_default();
        let and = filter.and.unwrap_or_default();
        let prefixes = [element.prefix, filter.prefix, and.prefix];
        let mut acts = Vec::new();
        if let Some(when) = element.expiration.as_ref().and_then(When::words) {
            acts.push(Act::Deletes { when });
        }
        for transition in &element.transitions {
            if let Some(when) = transition.words() {
                let class = transition.storage_class.as_deref().unwrap_or("another class");
                acts.push(Act::Moves {
                    when,
                    class: crate::words::plain(class),
                });
            }
        }
        rules.push(Rule {
            name: match element.id.as_str() {
                "" => format!("number {}", number + 1),
                id => crate::words::plain(id),
            },
            prefix: prefixes
                .into_iter()
                .find(|prefix| !prefix.is_empty())
                .unwrap_or_default(),
            tagged: filter.tag.is_some() || !and.tags.is_empty(),
            acts,
        });
    }
    Ok(rules)
}

/// Whose way of writing rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// S3's, as `aws s3api put-bucket-lifecycle-configuration` takes it.
    S3,
    /// B2's own, as `b2 bucket update --lifecycle-rules` takes it.
    B2,
}

impl Dialect {
    /// The one of the store at this place.
    pub fn of(place: &S3Place) -> Self {
        let host = place.endpoint.split("://").nth(1).unwrap_or_default();
        let host = host.split(['/', ':']).next().unwrap_or_default();
        match host == "backblazeb2.com" || host.ends_with(".backblazeb2.com") {
            true => Self::B2,
            false => Self::S3,
        }
    }
}

/// Rules that take nothing from the repository at this place: what restic replaced or deleted goes after so many days, and what was
/// never finished after seven.
pub fn safe_rules(place: &S3Place, dialect: Dialect, days: u32) -> Value {
    const UNFINISHED: u32 = 7;
    let prefix = match place.prefix.as_str() {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    match dialect {
        Dialect::S3 => json!({ "Rules": [
            {
                "ID": "reseed-deleted-versions",
                "Status": "Enabled",
                "Filter": { "Prefix": prefix },
                "NoncurrentVersionExpiration": { "NoncurrentDays": days },
                "Expiration": { "ExpiredObjectDeleteMarker": true },
            },
            {
                "ID": "reseed-unfinished-uploads",
                "Status": "Enabled",
                "Filter": { "Prefix": prefix },
                "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": UNFINISHED },
            },
        ]}),
        Dialect::B2 => json!([{
            "fileNamePrefix": prefix,
            "daysFromHidingToDeleting": days,
            "daysFromUploadingToHiding": null,
            "daysFromStartingToCancelingUnfinishedLargeFiles": UNFINISHED,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(endpoint: &str, prefix: &str) -> S3Place {
        S3Place {
            endpoint: endpoint.into(),
            region: "r".into(),
            bucket: "b".into(),
            prefix: prefix.into(),
            allow_http: false,
        }
    }

    fn harmful(rule: &str, prefix: &str) -> Vec<String> {
        let body = format!(
            "<?xml version=\"1.0\"?>\n<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Rule><ID>old</ID>{rule}</Rule></LifecycleConfiguration>"
        );
        let rules = rules_of(&body).unwrap();
        harms(&rules, &place("https://h", prefix))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_deletes_or_archives_by_age_is_told() {
        let expires = "<Filter><Prefix></Prefix></Filter><Status>Enabled</Status><Expiration><Days>90</Days></Expiration>";
        assert_eq!(
            harmful(expires, "nas"),
            ["lifecycle rule \"old\" deletes every object of the bucket that is 90 days old"]
        );
        let old = "<Prefix>nas/data/</Prefix><Status>Enabled</Status><Expiration><Date>2027-01-01T00:00:00Z</Date></Expiration>";
        assert_eq!(
            harmful(old, "nas"),
            ["lifecycle rule \"old\" deletes every object below \"nas/data/\" on 2027-01-01T00:00:00Z"]
        );
        let both = "<Filter/><Status>Enabled</Status><Transition><Days>30</Days><StorageClass>STANDARD_IA</StorageClass></Transition>\
             <Transition><Days>60</Days><StorageClass>DEEP_ARCHIVE</StorageClass></Transition>";
        let told = harmful(both, "");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("DEEP_ARCHIVE that is 60 days old"), "{told:?}");
        let and = "<Filter><And><Prefix>na</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>\
             <Status>Enabled</Status><Expiration><Days>1</Days></Expiration>";
        assert_eq!(harmful(and, "nas").len(), 1);
    }

    #[test]
    fn what_leaves_the_repository_alone_is_not() {
        let expiring = |filter: &str| {
            format!("{filter}<Status>Enabled</Status><Expiration><Days>90</Days></Expiration>")
        };
        for rule in [
            expiring("<Filter><Prefix>other/</Prefix></Filter>"),
            expiring("<Filter><Prefix>nas2</Prefix></Filter>"),
            expiring("<Filter><Prefix>nas/locks/</Prefix></Filter>"),
            expiring("<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>"),
            expiring("<Filter/>").replace("Enabled", "Disabled"),
            "<Filter/><Status>Enabled</Status><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>\
             </NoncurrentVersionExpiration><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>\
             </Expiration>"
                .to_owned(),
            "<Filter/><Status>Enabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
             </AbortIncompleteMultipartUpload>"
                .to_owned(),
        ] {
            assert_eq!(harmful(&rule, "nas"), Vec::<String>::new(), "{rule}");
        }
        assert_eq!(rules_of("<LifecycleConfiguration/>").unwrap(), []);
        assert!(rules_of("<html><body>It works!</body></html>").is_err());
    }

    #[test]
    fn the_rules_that_are_printed_are_safe_by_the_same_measure() {
        let of_b2 = place("https://s3.us-west-004.backblazeb2.com", "nas");
        assert_eq!(Dialect::of(&of_b2), Dialect::B2);
        assert_eq!(
            Dialect::of(&place("https://backblazeb2.com.evil.example", "")),
            Dialect::S3
        );
        let rules = safe_rules(&of_b2, Dialect::B2, 30);
        assert_eq!(rules[0]["fileNamePrefix"], "nas/");
        assert_eq!(rules[0]["daysFromUploadingToHiding"], Value::Null);
        let rules = safe_rules(&place("https://h", ""), Dialect::S3, 30);
        for rule in rules["Rules"].as_array().unwrap() {
            assert_eq!(rule["Filter"]["Prefix"], "");
            assert!(rule.get("Transition").is_none());
            let expiration = rule.get("Expiration").cloned().unwrap_or_default();
            assert!(
                expiration.get("Days").is_none() && expiration.get("Date").is_none(),
                "{rule}"
            );
        }
    }
}

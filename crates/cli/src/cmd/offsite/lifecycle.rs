//! `reseed offsite lifecycle`, and what `reseed doctor` says of buckets' rules.

use reseed_backend_restic::error::EngineError;
use reseed_backend_restic::s3::S3Place;
use reseed_backend_restic::s3::lifecycle::{self, Dialect};
use reseed_backend_restic::secret::open_to_all;
use reseed_core::error::{OpError, OpKind};
use reseed_core::names::SourceName;
use serde_json::json;

use crate::args;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{Mood, printable};

/// Standard output is the rules alone, so that they can go into a file.
pub(super) fn run(
    repository: &str,
    store: Option<args::Dialect>,
    days: u32,
    session: &Session,
) -> Result<Answer, OpError> {
    let name = session.offsite_name(repository)?;
    let Some((place, _)) = session.bucket(&name) else {
        let what = format!(
            "{name} is at {}, where there are no lifecycle rules",
            session.location(&name)
        );
        return Err(OpError::new(OpKind::InvalidInput, what)
            .hint("only a repository in a bucket, at an address that begins with `s3:`, needs any"));
    };
    let dialect = match store {
        Some(args::Dialect::S3) => Dialect::S3,
        Some(args::Dialect::B2) => Dialect::B2,
        None => Dialect::of(&place),
    };
    let rules = lifecycle::safe_rules(&place, dialect, days);
    let apply = match dialect {
        Dialect::S3 => format!(
            "aws --endpoint-url {} s3api put-bucket-lifecycle-configuration --bucket {} \
             --lifecycle-configuration file://RULES.json",
            place.endpoint, place.bucket
        ),
        Dialect::B2 => format!(
            "b2 bucket update --lifecycle-rules \"$(cat RULES.json)\" {} allPrivate",
            place.bucket
        ),
    };
    crate::complain(&format!("to apply them: {apply}"));
    crate::complain("note: that replaces the rules that the bucket has; `reseed doctor` looks at those");
    let text = serde_json::to_string_pretty(&rules).unwrap_or_default() + "\n";
    let answer = json!({
        "repository": name, "bucket": place.bucket, "prefix": place.prefix, "for": dialect, "rules": rules, "apply": apply,
    });
    Ok(Answer::new(&answer, text, Exit::Ok))
}

/// The rules of a repository's bucket that will destroy it. None for one that is in no bucket, or whose rules can't be asked for: that
/// [`doctor`] tells, for a key that may only read and write has no right to them.
pub(crate) async fn eating(session: &Session, name: &SourceName) -> Vec<lifecycle::Harm> {
    match asked(session, name).await {
        Some((place, Ok(lifecycle::Answer::Rules(rules)))) => lifecycle::harms(&rules, &place),
        _ => Vec::new(),
    }
}

/// The bucket of a repository, and what it says of its rules; none where there is no bucket, or when the run was cancelled.
async fn asked(
    session: &Session,
    name: &SourceName,
) -> Option<(S3Place, Result<lifecycle::Answer, EngineError>)> {
    let (place, key) = session.bucket(name)?;
    let asked = tokio::select! {
        asked = lifecycle::ask(&place, &key) => asked,
        () = session.cx.cancel.cancelled() => return None,
    };
    Some((place, asked))
}

/// What to do about such a rule.
pub(crate) fn remove_it(name: &SourceName) -> String {
    format!(
        "remove that rule now; `reseed offsite lifecycle {name}` prints rules that are safe, and `keep` ages points out"
    )
}

/// Looks at every repository's files with secrets, and at the rules of its bucket where it is in one.
pub(crate) async fn doctor(session: &Session) -> Result<Answer, OpError> {
    let (mut text, mut found, mut exit) = (String::new(), Vec::new(), Exit::Ok);
    let mut tell = |mood, line: &str, hint: &str| {
        text.push_str(&format!("{}\n", session.ui.paint(mood, &printable(line))));
        if !hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", printable(hint)));
        }
    };
    let mut secrets = Vec::new();
    for (name, offsite) in &session.config.offsite {
        for path in offsite.secret_files() {
            if let Some(unwise) = open_to_all(path) {
                exit = exit.max(Exit::Partial);
                tell(Mood::Warn, &format!("{name}: {unwise}"), "");
                secrets.push(json!({ "repository": name, "file": path, "unwise": unwise }));
            }
        }
    }
    for name in session.config.offsite.keys() {
        let Some((place, asked)) = asked(session, name).await else {
            if session.cx.cancel.is_cancelled() {
                return Err(OpError::new(OpKind::Cancelled, "cancelled"));
            }
            continue;
        };
        match asked {
            Ok(lifecycle::Answer::Rules(rules)) => {
                let harms = lifecycle::harms(&rules, &place);
                for harm in &harms {
                    exit = exit.max(Exit::Failed);
                    let line = format!("{name}: {harm}: the repository will be destroyed");
                    tell(Mood::Bad, &line, &remove_it(name));
                }
                if harms.is_empty() {
                    let line = format!(
                        "{name}: no lifecycle rule of bucket {} touches the repository",
                        place.bucket
                    );
                    tell(Mood::Good, &line, "");
                }
                found.push(json!({ "repository": name, "bucket": place.bucket, "harms": harms }));
            }
            Ok(lifecycle::Answer::Untold { why }) => {
                exit = exit.max(Exit::Partial);
                let line = format!(
                    "{name}: the lifecycle rules of bucket {} are not known: {why}",
                    place.bucket
                );
                tell(
                    Mood::Warn,
                    &line,
                    "look at them with the store's own tools: none may delete or archive by age",
                );
                found.push(json!({ "repository": name, "bucket": place.bucket, "untold": why }));
            }
            Err(error) => {
                exit = exit.max(Exit::Failed);
                let line = format!("{name}: the lifecycle rules can't be looked at: {error}");
                tell(Mood::Bad, &line, error.hint().unwrap_or_default());
                found.push(json!({ "repository": name, "bucket": place.bucket, "error": error }));
            }
        }
    }
    if found.is_empty() {
        text.push_str("no repository is in a bucket\n");
    }
    Ok(Answer::new(
        &json!({ "lifecycles": found, "secrets": secrets }),
        text,
        exit,
    ))
}

//! What an S3 store, or the way to it, said: sorted into the kinds that are mended differently. Pure.
//!
//! The client's errors carry the answer only as text, so the text is what is read: the status, and the code and message
//! of the XML. Stores differ in their codes; those of AWS, B2, Garage, MinIO, Ceph and Wasabi are known here. Whatever is
//! not known stays the store's own words, and nothing is ever taken for "there is nothing".

use std::error::Error;
use std::io;

use object_store::Error as StoreError;

use crate::error::EngineError;

/// The parts of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inner, _)| inner.trim())
}

impl Said {
    fn of(text: &str) -> Self {
        let status = text
            .split_once("status code: ")
            .and_then(|(_, rest)| rest.get(..3))
            .and_then(|digits| digits.parse().ok());
        let own = |tag: &str| {
            let inner = between(text, &format!("<{tag}>"), &format!("</{tag}>"))?;
            // What isn't XML is shown as it is.
            let text = quick_xml::escape::unescape(inner).unwrap_or(inner.into());
            Some(crate::words::plain(&text))
        };
        Self {
            status,
            code: own("Code"),
            message: own("Message"),
        }
    }

    /// Code, message and status, as far as they were given. Never the whole answer: it may hold what was signed.
    fn words(&self) -> String {
        let said: Vec<&str> = [&self.code, &self.message]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        match (said.is_empty(), self.status) {
            (true, Some(status)) => format!("it answered {status} without a reason"),
            (true, None) => String::new(),
            (false, Some(status)) => format!("{} ({status})", said.join(": ")),
            (false, None) => said.join(": "),
        }
    }
}

/// The innermost cause, which says most.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    crate::words::plain(&inner.to_string())
}

/// What an error and its causes say, with this between them.
pub(crate) fn chain(error: &(dyn Error + 'static), between: &str) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(error) = current {
        text.push_str(between);
        text.push_str(&error.to_string());
        current = error.source();
    }
    text
}

/// The code of an answer, and all that it said.
pub(crate) fn told(status: u16, body: &str) -> (String, String) {
    let said = Said::of(&format!("status code: {status}: {body}"));
    let words = said.words();
    (said.code.unwrap_or_default(), words)
}

/// The kind of an error of a remote store. `location` is the repository's, `path` the object's.
pub(crate) fn sort(action: &str, path: &str, location: &str, error: &StoreError) -> EngineError {
    let text = chain(error, "\n");
    let said = Said::of(&text);
    let location = || location.to_owned();
    if let Some(code) = &said.code
        && let Some(kind) = by_code(code, &said, path, &location)
    {
        return kind;
    }
    if let Some(kind) = by_status(&said, path, &location, error) {
        return kind;
    }
    if said.status.is_none()
        && let Some(kind) = by_transport(&text, &location, error)
    {
        return kind;
    }
    match error {
        StoreError::NotFound { .. } => EngineError::Unreadable {
            what: path.to_owned(),
            detail: "it does not exist".into(),
        },
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => {
            EngineError::AlreadyExists { location: location() }
        }
        StoreError::PermissionDenied { .. } => EngineError::Denied {
            what: path.to_owned(),
            detail: said.words(),
        },
        _ => EngineError::Store {
            action: format!("{action} {path}"),
            detail: match said.words() {
                words if words.is_empty() => cause(error),
                words => words,
            },
        },
    }
}

fn by_code(code: &str, said: &Said, path: &str, location: &dyn Fn() -> String) -> Option<EngineError> {
    let (location, detail) = (location(), said.words());
    let message = said.message.as_deref().unwrap_or_default().to_lowercase();
    let full = || EngineError::NoSpace {
        path: format!("{path}: {}", said.words()),
    };
    Some(match code {
        "NoSuchBucket" | "InvalidBucketName" => EngineError::NoBucket { location, detail },
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSecurity"
        | "InvalidToken"
        | "NotSignedUp"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "MissingAuthenticationToken" => EngineError::Credentials { location, detail },
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => {
            EngineError::CredentialsExpired { location, detail }
        }
        "RequestTimeTooSkewed" => EngineError::ClockSkew { location, detail },
        // Garage's words for a wrong secret and for a key that it doesn't know.
        "AccessDenied" if message.contains("invalid signature") || message.contains("no such key") => {
            EngineError::Credentials { location, detail }
        }
        // It is also said of a key that can't be one. Garage calls the region a part of the scope.
        "AuthorizationHeaderMalformed"
            if !message.contains("region") && !message.contains("unexpected scope") =>
        {
            EngineError::Credentials { location, detail }
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "InvalidRegion"
        | "IllegalLocationConstraintException" => EngineError::WrongRegion { location, detail },
        "QuotaExceeded"
        | "QuotaExceededException"
        | "StorageQuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientStorage"
        | "InsufficientCapacity" => full(),
        // B2 has no code of its own for a bucket that reached the limit set for it.
        "AccessDenied" if message.contains("cap exceeded") => full(),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => EngineError::Denied {
            what: path.to_owned(),
            detail,
        },
        _ => return None,
    })
}

fn by_status(
    said: &Said,
    path: &str,
    location: &dyn Fn() -> String,
    error: &StoreError,
) -> Option<EngineError> {
    let (location, detail) = (location(), said.words());
    let not_s3 = said.code.is_none();
    Some(match said.status? {
        401 => EngineError::Credentials { location, detail },
        507 => EngineError::NoSpace {
            path: format!("{path}: {detail}"),
        },
        // What a store doesn't know it will not know in a moment.
        501 => return None,
        408 | 429 | 500..=599 => EngineError::Unreachable { location, detail },
        301 | 302 | 307 | 308 => EngineError::WrongRegion { location, detail },
        // A lone object that is not there is no reason to doubt the endpoint.
        404 if not_s3 && matches!(error, StoreError::NotFound { .. }) => return None,
        // What denies access may be anything, and a look at an object is answered without a reason.
        403 => return None,
        400..=499 if not_s3 => EngineError::WrongEndpoint { location, detail },
        _ => return None,
    })
}

fn by_transport(text: &str, location: &dyn Fn() -> String, error: &StoreError) -> Option<EngineError> {
    let (location, detail) = (location(), cause(error));
    let lower = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| lower.contains(words));
    let io = super::io_cause(error).map(io::Error::kind);
    Some(if says(&["redirect without location"]) {
        EngineError::WrongRegion { location, detail }
    } else if says(&["dns error", "failed to lookup address"]) {
        EngineError::NoSuchHost { location, detail }
    } else if io == Some(io::ErrorKind::ConnectionRefused) || says(&["connection refused"]) {
        EngineError::Refused { location, detail }
    } else if says(&["certificate"]) {
        EngineError::Untrusted { location, detail }
    } else if says(&[
        "url scheme is not allowed",
        "corrupt message",
        "invalid list response",
        "unable to extract metadata",
    ]) {
        EngineError::WrongEndpoint { location, detail }
    } else if io.is_some()
        || says(&[
            "error sending request",
            "error decoding response body",
            "request or response body error",
            "connection closed",
            "timed out",
            "operation was canceled",
        ])
    {
        EngineError::Unreachable { location, detail }
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: &str, body: &str) -> EngineError {
        let error = StoreError::Generic {
            store: "S3",
            source: format!("Error performing GET: Server returned non-2xx status code: {status}: {body}")
                .into(),
        };
        sort("read", "config", "s3:there/b", &error)
    }

    fn coded(status: &str, code: &str, message: &str) -> EngineError {
        let body = format!("<?xml?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
        answered(status, &body)
    }

    fn kind(error: &EngineError) -> String {
        let json = serde_json::to_value(error).unwrap();
        json["kind"].as_str().unwrap().to_owned()
    }

    #[test]
    fn each_cause_has_its_kind() {
        for (status, code, message, wanted) in [
            ("404 Not Found", "NoSuchBucket", "no", "no_bucket"),
            ("403 Forbidden", "InvalidAccessKeyId", "no", "credentials"),
            ("403 Forbidden", "SignatureDoesNotMatch", "no", "credentials"),
            ("400 Bad Request", "ExpiredToken", "over", "credentials_expired"),
            ("403 Forbidden", "RequestTimeTooSkewed", "late", "clock_skew"),
            (
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                "the region 'a' is wrong",
                "wrong_region",
            ),
            (
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                "a non-empty Access Key must be provided",
                "credentials",
            ),
            (
                "400 Bad Request",
                "AuthorizationHeaderMalformed",
                "unexpected scope: &apos;20261127/a/s3/aws4_request&apos;",
                "wrong_region",
            ),
            (
                "301 Moved Permanently",
                "PermanentRedirect",
                "there",
                "wrong_region",
            ),
            ("403 Forbidden", "QuotaExceeded", "full", "no_space"),
            (
                "403 Forbidden",
                "AccessDenied",
                "Cannot upload files, storage cap exceeded.",
                "no_space",
            ),
            ("403 Forbidden", "AccessDenied", "Access Denied", "denied"),
            (
                "403 Forbidden",
                "AccessDenied",
                "Forbidden: Invalid signature",
                "credentials",
            ),
            (
                "507 Insufficient Storage",
                "XMinioStorageFull",
                "full",
                "no_space",
            ),
            ("503 Service Unavailable", "SlowDown", "slow", "unreachable"),
            (
                "500 Internal Server Error",
                "InternalError",
                "oops",
                "unreachable",
            ),
            ("501 Not Implemented", "NotImplemented", "what?", "store"),
            ("416 Range Not Satisfiable", "InvalidRange", "no", "store"),
        ] {
            assert_eq!(kind(&coded(status, code, message)), wanted, "{code}: {message}");
        }
        for (status, body, wanted) in [
            ("404 Not Found", "<html>It works!</html>", "wrong_endpoint"),
            (
                "400 Bad Request",
                "Client sent an HTTP request to an HTTPS server.",
                "wrong_endpoint",
            ),
            ("405 Method Not Allowed", "", "wrong_endpoint"),
            ("401 Unauthorized", "", "credentials"),
            ("502 Bad Gateway", "<html>nginx</html>", "unreachable"),
            ("403 Forbidden", "", "store"),
        ] {
            assert_eq!(kind(&answered(status, body)), wanted, "{status} {body}");
        }
    }

    #[test]
    fn words_are_for_people() {
        let error = coded("403 Forbidden", "AccessDenied", "no &apos;a&apos; &amp;lt; b").to_string();
        assert!(error.contains("no 'a' &lt; b"), "{error}");
    }

    #[test]
    fn words_are_the_stores_and_not_its_whole_answer() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>The request\nsignature</Message><StringToSign>x</StringToSign></Error>";
        let error = answered("403 Forbidden", body).to_string();
        assert!(
            error.contains("SignatureDoesNotMatch: The request signature (403)"),
            "{error}"
        );
        assert!(!error.contains("StringToSign"), "{error}");
    }

    #[test]
    fn the_way_there_has_its_kinds_too() {
        let of = |source: Box<dyn Error + Send + Sync>| {
            kind(&sort(
                "list",
                "keys",
                "s3:there/b",
                &StoreError::Generic { store: "S3", source },
            ))
        };
        let io = |kind: io::ErrorKind| Box::new(io::Error::from(kind));
        assert_eq!(of(io(io::ErrorKind::ConnectionRefused)), "refused");
        assert_eq!(of(io(io::ErrorKind::TimedOut)), "unreachable");
        assert_eq!(of(io(io::ErrorKind::ConnectionReset)), "unreachable");
        assert_eq!(
            of("dns error: failed to lookup address information".into()),
            "no_such_host"
        );
        assert_eq!(of("invalid peer certificate: UnknownIssuer".into()), "untrusted");
        assert_eq!(
            of("received corrupt message of type InvalidContentType".into()),
            "wrong_endpoint"
        );
        assert_eq!(
            of("Got invalid list response: expected `<`".into()),
            "wrong_endpoint"
        );
        assert_eq!(of("something new".into()), "store");
    }
}

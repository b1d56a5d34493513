//! What answers a listing has to be one.
//!
//! object_store takes any document for a listing, and one that has none of its elements for an empty one. A web page that some
//! box on the way answers with would say that there are no snapshots. Nor does it read whether a listing goes on, only where: where a
//! server doesn't say that, everything behind the first thousand would be missing without a word.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use serde::Deserialize;

/// Makes clients that look at listings.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Looking(client)))
    }
}

#[derive(Debug)]
struct Looking(HttpClient);

/// `store::said` knows these words.
#[derive(Debug, thiserror::Error)]
#[error("invalid list response: it is no listing, or only the beginning of one")]
struct NoListing;

#[async_trait]
impl HttpService for Looking {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default();
        let lists = query.split('&').any(|pair| pair.starts_with("list-type="));
        let asked_from = asked_from(query);
        let answer = self.0.execute(request).await?;
        if !lists || !answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.bytes().await?;
        if !is_document(&body, "ListBucketResult") || !can_go_on(&body, asked_from.as_deref()) {
            return Err(HttpError::new(HttpErrorKind::Decode, NoListing));
        }
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

/// Where the page that is asked for begins, as the page before said.
fn asked_from(query: &str) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://x/?{query}")).ok()?;
    let mut pairs = url.query_pairs();
    pairs
        .find(|(name, _)| name == "continuation-token")
        .map(|(_, token)| token.into_owned())
}

/// Whether a page is the last, or says where the next one begins, which isn't where it began itself.
fn can_go_on(body: &[u8], asked_from: Option<&str>) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        is_truncated: Option<String>,
        next_continuation_token: Option<String>,
    }
    let Ok(page) = quick_xml::de::from_str::<Page>(&String::from_utf8_lossy(body)) else {
        return false;
    };
    let truncated = page.is_truncated.is_some_and(|said| said.trim() == "true");
    match page.next_continuation_token.filter(|token| !token.is_empty()) {
        Some(token) => asked_from != Some(&token),
        None => !truncated,
    }
}

/// Whether an XML document's outermost element is of this name, and is closed.
pub(super) fn is_document(body: &[u8], name: &str) -> bool {
    let text = String::from_utf8_lossy(body);
    let mut text = text.trim_start_matches('\u{feff}').trim();
    while let Some(rest) = text.strip_prefix("<?").or_else(|| text.strip_prefix("<!--")) {
        let Some((_, rest)) = rest.split_once('>') else {
            return false;
        };
        text = rest.trim_start();
    }
    let opens = text.strip_prefix('<').and_then(|text| text.strip_prefix(name));
    let opens =
        opens.is_some_and(|rest| rest.starts_with(|c: char| c == '>' || c == '/' || c.is_whitespace()));
    opens && (text.ends_with(&format!("</{name}>")) || text.ends_with("/>"))
}

#[cfg(test)]
mod tests {
    use super::{asked_from, can_go_on, is_document};

    #[test]
    fn a_page_that_says_that_there_are_more_says_where() {
        let page = |more: &str| {
            format!(
                "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Name>b</Name>{more}<Contents><Key>k</Key></Contents><Contents><Key>l</Key></Contents></ListBucketResult>"
            )
        };
        let good = |more: &str, from: Option<&str>| can_go_on(page(more).as_bytes(), from);
        let next = "<NextContinuationToken>a+b/c=&amp;</NextContinuationToken>";
        assert!(good("", None) && good("<IsTruncated>false</IsTruncated>", Some("a")));
        assert!(good(&format!("<IsTruncated>true</IsTruncated>{next}"), Some("a")));
        // Of the first version, of none at all, and one that goes round in circles.
        for (more, from) in [
            (
                "<IsTruncated>true</IsTruncated><Marker/><NextMarker>l</NextMarker>",
                None,
            ),
            ("<IsTruncated>true</IsTruncated><NextContinuationToken/>", None),
            (
                next,
                asked_from("list-type=2&continuation-token=a%2Bb%2Fc%3D%26&prefix=x"),
            ),
        ] {
            assert!(!good(more, from.as_deref()), "{more}");
        }
        assert_eq!(asked_from("list-type=2&prefix=continuation-token"), None);
    }

    #[test]
    fn a_web_page_is_no_empty_listing() {
        for listing in [
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"x\"><Name>b</Name></ListBucketResult>\n",
            "<ListBucketResult></ListBucketResult>",
            "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"/>",
        ] {
            assert!(is_document(listing.as_bytes(), "ListBucketResult"), "{listing}");
        }
        for other in [
            "",
            "<html><body>It works!</body></html>",
            "<?xml version=\"1.0\"?><Error><Code>X</Code></Error>",
            "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Na",
            "<ListBucketResultOfSomethingElse/>",
            "<?xml",
        ] {
            assert!(!is_document(other.as_bytes(), "ListBucketResult"), "{other}");
        }
    }
}

//! What answers a listing has to be one.
//!
//! object_store takes any document for a listing, and one that has none of its elements for an empty one. A web page that some
//! box on the way answers with would say that there are no snapshots.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

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
        let answer = self.0.execute(request).await?;
        if !lists || !answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.bytes().await?;
        if !is_document(&body, "ListBucketResult") {
            return Err(HttpError::new(HttpErrorKind::Decode, NoListing));
        }
        Ok(HttpResponse::from_parts(head, body.into()))
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
    use super::is_document;

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

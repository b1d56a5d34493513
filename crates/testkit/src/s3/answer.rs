//! One request: the rules are asked, the region is checked, and the store answers.

use std::sync::PoisonError;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri};
use s3s::Body;

use super::faults::{S3Fault, S3Op};
use super::served::{Behind, Shared};
use super::{Here, proxy};

/// Why a connection is closed without an answer.
pub(super) type Closed = Box<dyn std::error::Error + Send + Sync>;

/// What is asked, and of which key or prefix.
fn asked(method: &Method, uri: &Uri) -> (S3Op, String) {
    let path = uri.path().trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key);
    let query = uri.query().unwrap_or("");
    let of_object = !key.is_empty();
    let op = match *method {
        Method::GET if !of_object && of_lifecycle(uri).is_none() => S3Op::List,
        Method::GET if !of_object => S3Op::Other,
        Method::GET => S3Op::Get,
        Method::HEAD => S3Op::Head,
        Method::PUT if of_object => S3Op::Put,
        Method::DELETE if of_object => S3Op::Delete,
        _ => S3Op::Other,
    };
    if op != S3Op::List {
        return (op, key.to_owned());
    }
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
    (op, prefix.unwrap_or("").replace("%2F", "/"))
}

/// The bucket whose lifecycle rules are asked for.
fn of_lifecycle(uri: &Uri) -> Option<&str> {
    let asked = |query: &str| {
        query
            .split('&')
            .any(|pair| pair.trim_end_matches('=') == "lifecycle")
    };
    let bucket = uri.path().trim_matches('/');
    uri.query().is_some_and(asked).then_some(bucket)
}

/// The region that a request is signed for.
fn signed_for(request: &Request<Incoming>) -> Option<&str> {
    let header = request
        .headers()
        .get(hyper::header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let scope = header.split("Credential=").nth(1)?.split(',').next()?;
    // KEY/DATE/REGION/s3/aws4_request
    scope.split('/').rev().nth(2)
}

fn error(status: u16, code: &str, message: &str, more: &str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    );
    text_answer(status, "application/xml", text)
}

fn text_answer(status: u16, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(kind),
    );
    response
}

pub(super) async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    let (op, key) = asked(request.method(), request.uri());
    let fault = shared.faults.strike(op, &key);
    match &fault {
        Some(S3Fault::Error {
            status,
            code,
            message,
        }) => {
            // As a real server does, so that the client gets to read the answer.
            drop(request.into_body().collect().await);
            return Ok(error(*status, code, message, ""));
        }
        Some(S3Fault::NotS3(status)) => {
            drop(request.into_body().collect().await);
            let page = "<html><body>It works!</body></html>".to_owned();
            return Ok(text_answer(*status, "text/html", page));
        }
        Some(S3Fault::Slow(time)) => shared.clock.sleep(*time).await,
        Some(S3Fault::Hang) => std::future::pending().await,
        Some(S3Fault::Reset) => return Err("closed by a rule".into()),
        _ => {}
    }
    let response = match &shared.behind {
        Behind::Here(here) => of_store(here, request).await?,
        Behind::There(upstream) => {
            let answer = proxy::forward(*upstream, request).await?;
            if proxy::wrote(op, &key, &answer) {
                shared.faults.wrote(&key);
            }
            match op {
                S3Op::List => proxy::only_listed(&shared.faults, answer).await?,
                _ => answer,
            }
        }
    };
    match fault {
        Some(S3Fault::LostAnswer) => Err("the answer is lost by a rule".into()),
        Some(S3Fault::Cut(at)) => {
            let (parts, body) = response.into_parts();
            let all = body.collect().await?.to_bytes();
            let kept = all.slice(..at.min(all.len().saturating_sub(1)));
            let frames: [Result<Frame<Bytes>, Closed>; 2] =
                [Ok(Frame::data(kept)), Err("cut by a rule".into())];
            let body = Body::http_body_unsync(StreamBody::new(stream::iter(frames)));
            Ok(Response::from_parts(parts, body))
        }
        Some(S3Fault::Flip(at)) => {
            let (parts, body) = response.into_parts();
            let mut all = Vec::from(body.collect().await?.to_bytes());
            let last = all.len().saturating_sub(1);
            if let Some(byte) = all.get_mut(at.min(last)) {
                *byte ^= 0x10;
            }
            Ok(Response::from_parts(parts, Body::from(all)))
        }
        Some(S3Fault::NoToken) => {
            let (mut parts, body) = response.into_parts();
            let all = body.collect().await?.to_bytes();
            parts.headers.remove(hyper::header::CONTENT_LENGTH);
            Ok(Response::from_parts(
                parts,
                Body::from(without_token(&String::from_utf8_lossy(&all))),
            ))
        }
        _ => Ok(response),
    }
}

fn without_token(listing: &str) -> String {
    let (open, close) = ("<NextContinuationToken>", "</NextContinuationToken>");
    match listing
        .split_once(open)
        .map(|(before, rest)| (before, rest.split_once(close)))
    {
        Some((before, Some((_, behind)))) => format!("{before}{behind}"),
        _ => listing.to_owned(),
    }
}

/// What the store in this process says.
async fn of_store(here: &Here, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    if let Some(region) = signed_for(&request)
        && region != here.region
    {
        let message = format!(
            "The authorization header is malformed; the region '{region}' is wrong; expecting '{}'",
            here.region
        );
        let more = format!("<Region>{}</Region>", here.region);
        drop(request.into_body().collect().await);
        return Ok(error(400, "AuthorizationHeaderMalformed", &message, &more));
    }
    let lifecycle_of = of_lifecycle(request.uri()).map(str::to_owned);
    let mut response = here.service.call(request.map(Body::from)).await?;
    if let Some(bucket) = lifecycle_of.filter(|_| response.status() == StatusCode::OK) {
        let lifecycles = here.lifecycles.lock().unwrap_or_else(PoisonError::into_inner);
        let text = lifecycles.get(&bucket).cloned().unwrap_or_default();
        response = text_answer(200, "application/xml", text);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let of = |method: Method, uri: &'static str| asked(&method, &Uri::from_static(uri));
        let key = |key: &str| key.to_owned();
        assert_eq!(of(Method::GET, "/b/k/1"), (S3Op::Get, key("k/1")));
        assert_eq!(of(Method::HEAD, "/b/k"), (S3Op::Head, key("k")));
        assert_eq!(of(Method::PUT, "/b/k"), (S3Op::Put, key("k")));
        assert_eq!(of(Method::DELETE, "/b/k"), (S3Op::Delete, key("k")));
        let list = "/b?list-type=2&prefix=r%2Fkeys%2F";
        assert_eq!(of(Method::GET, list), (S3Op::List, key("r/keys/")));
        assert_eq!(of(Method::GET, "/b?lifecycle"), (S3Op::Other, key("")));
        assert_eq!(of(Method::PUT, "/b"), (S3Op::Other, key("")));
    }
}

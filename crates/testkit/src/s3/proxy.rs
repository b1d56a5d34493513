//! The rules in front of another S3 server.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use s3s::Body;
use tokio::net::TcpStream;

use super::answer::Closed;
use super::served::{Behind, Door, Served};
use super::{S3Faults, S3Op};

/// A server on loopback that hands every request on to another one, as it is, and its answers back, unless a rule strikes.
///
/// Signatures stay valid, for they are of the host that the client asked, and that is handed on too. Of the rules,
/// [`S3Fault::Unconditional`](super::S3Fault::Unconditional) does nothing here. Dropping it ends it.
#[derive(Debug)]
pub struct S3Proxy {
    endpoint: String,
    faults: S3Faults,
    _served: Served,
}

impl S3Proxy {
    /// Starts one in front of what listens there by plain HTTP, on a port that the kernel chooses.
    ///
    /// # Errors
    /// When the port or the thread can't be had.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let (door, faults) = (Door::open()?, S3Faults::default());
        Ok(Self {
            endpoint: door.endpoint(),
            _served: door.serve(&faults, Behind::There(upstream))?,
            faults,
        })
    }

    /// `http://127.0.0.1:PORT`, in place of the server's own.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The rules by which it fails.
    pub fn faults(&self) -> &S3Faults {
        &self.faults
    }
}

/// Asks the other server. Whole bodies are kept on the way: an object of a repository is some megabytes.
pub(super) async fn forward(
    upstream: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // Of this connection, and not of the request.
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::EXPECT] {
        parts.headers.remove(name);
    }
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    let asked = async {
        let answer = sender
            .send_request(Request::from_parts(parts, Full::new(body)))
            .await?;
        let (mut parts, body) = answer.into_parts();
        parts.headers.remove(header::CONNECTION);
        parts.headers.remove(header::TRANSFER_ENCODING);
        Ok(Response::from_parts(
            parts,
            Body::from(body.collect().await?.to_bytes()),
        ))
    };
    tokio::pin!(asked);
    // What drives the connection ends with the answer, or with the other server.
    tokio::select! {
        answer = &mut asked => answer,
        ended = connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// Takes out of an answer to a listing what isn't listed yet by a rule.
pub(super) async fn only_listed(faults: &S3Faults, answer: Response<Body>) -> Result<Response<Body>, Closed> {
    let (mut parts, body) = answer.into_parts();
    let all = body.collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&all);
    // minio's client has keys encoded, as in `a%2Fb`; those of a repository have nothing else to encode.
    let plain = |key: &str| key.replace("%2F", "/");
    let hidden: BTreeSet<&str> = keys(&text).filter(|key| !faults.lists(&plain(key))).collect();
    if hidden.is_empty() {
        return Ok(Response::from_parts(parts, Body::from(all)));
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(without(&text, &hidden))))
}

/// The keys in a listing.
fn keys(text: &str) -> impl Iterator<Item = &str> {
    text.split("<Contents>").skip(1).filter_map(key)
}

fn key(contents: &str) -> Option<&str> {
    Some(contents.split_once("<Key>")?.1.split_once("</Key>")?.0)
}

fn without(text: &str, hidden: &BTreeSet<&str>) -> String {
    let mut parts = text.split("<Contents>");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if key(part).is_some_and(|key| hidden.contains(key)) {
            kept.push_str(part.split_once("</Contents>").map_or("", |(_, behind)| behind));
        } else {
            kept.push_str("<Contents>");
            kept.push_str(part);
        }
    }
    kept
}

/// Whether an object was written: by one request, or by the last of several, which S3 has no method of its own for.
pub(super) fn wrote(op: S3Op, key: &str, answer: &Response<Body>) -> bool {
    matches!(op, S3Op::Put | S3Op::Other) && !key.is_empty() && answer.status().is_success()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lags_is_taken_out_of_a_listing() {
        let text = "<R><Name>b</Name><Contents><Key>a/1</Key><Size>3</Size></Contents>\
                    <Contents><Key>a/2</Key></Contents><Contents><Key>a/3</Key></Contents><IsTruncated/></R>";
        assert_eq!(keys(text).collect::<Vec<_>>(), ["a/1", "a/2", "a/3"]);
        assert_eq!(without(text, &BTreeSet::new()), text);
        let kept = without(text, &BTreeSet::from(["a/1", "a/3"]));
        assert_eq!(
            kept,
            "<R><Name>b</Name><Contents><Key>a/2</Key></Contents><IsTruncated/></R>"
        );
    }
}

//! Answers whole: every field, the body's bytes, and trailers, over HTTP/1.1 and HTTP/2.

use std::io::{Read, Write};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use lictor_testkit::{Sidecar, connect};

use crate::{Version, lines};

/// Fields, as they are written.
pub(crate) type Lines<'a> = &'a [(&'a str, &'a str)];

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) fields: Lines<'a>,
    pub(crate) body: &'a [u8],
}

impl<'a> Asked<'a> {
    pub(crate) fn get(target: &'a str, fields: Lines<'a>) -> Self {
        Self { method: "GET", target, fields, body: b"" }
    }
}

/// What came. A body that broke off has no end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    pub(crate) is_whole: bool,
}

impl Got {
    /// A field's lines, joined; empty where there are none.
    pub(crate) fn field(&self, name: &str) -> String {
        let lines = self.headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?"));
        lines.collect::<Vec<_>>().join(", ")
    }
}

pub(crate) fn get(lictor: &Sidecar, version: Version, asked: Asked<'_>) -> Got {
    let address = lictor.address("gateway");
    match version {
        Version::Http1 => http1(&address, asked),
        Version::Http2 => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let half_a_minute = std::time::Duration::from_secs(30);
            runtime.block_on(async { tokio::time::timeout(half_a_minute, http2(&address, asked)).await.unwrap() })
        }
    }
}

fn http1(address: &str, asked: Asked<'_>) -> Got {
    let mut stream = connect(address);
    let mut text = format!("{} {} HTTP/1.1\r\nHost: shop.example\r\n", asked.method, asked.target);
    text += &lines(asked.fields);
    if !asked.body.is_empty() {
        text += &format!("Content-Length: {}\r\n", asked.body.len());
    }
    text += "Connection: close\r\n\r\n";
    stream.write_all(&[text.as_bytes(), asked.body].concat()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes); // a reset is an end too
    parse(&bytes, asked.method == "HEAD")
}

/// An answer of HTTP/1.1, as it came.
pub(crate) fn parse(bytes: &[u8], is_head: bool) -> Got {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {bytes:?}"));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut got =
        Got { status, headers: fields(head.split_once("\r\n").map_or("", |(_, rest)| rest)), ..Got::default() };
    let mut rest = &bytes[end + 4..];
    if is_head || !got.headers.contains_key("transfer-encoding") {
        got.body = rest.to_vec();
        let length = got.headers.get("content-length").map(|length| length.to_str().unwrap().parse::<usize>().unwrap());
        got.is_whole = is_head || length.is_none_or(|length| length == rest.len());
        return got;
    }
    while let Some(line) = rest.windows(2).position(|part| part == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if size == 0 {
            got.trailers = fields(&String::from_utf8_lossy(rest));
            got.is_whole = rest.ends_with(b"\r\n");
            return got;
        }
        got.body.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    got
}

fn fields(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in text.split("\r\n").filter_map(|line| line.split_once(':')) {
        headers.append(http::HeaderName::try_from(name).unwrap(), value.trim().parse().unwrap());
    }
    headers
}

async fn http2(address: &str, asked: Asked<'_>) -> Got {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = Uri::try_from(format!("http://shop.example{}", asked.target)).unwrap();
    let mut request = Request::builder().method(Method::try_from(asked.method).unwrap()).uri(uri);
    for (name, value) in asked.fields {
        request = request.header(*name, *value);
    }
    let (response, mut body) = sender.send_request(request.body(()).unwrap(), asked.body.is_empty()).unwrap();
    if !asked.body.is_empty() {
        body.send_data(Bytes::copy_from_slice(asked.body), true).unwrap();
    }
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut got = Got { status: head.status.as_u16(), headers: head.headers, ..Got::default() };
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return got };
        body.flow_control().release_capacity(data.len()).unwrap();
        got.body.extend_from_slice(&data);
    }
    let trailers = body.trailers().await;
    got.is_whole = trailers.is_ok();
    got.trailers = trailers.ok().flatten().unwrap_or_default();
    connection.abort();
    got
}

//! A client: `cargo run -p lictor-http --example get -- [--h2] http://127.0.0.1:8080/`. With `--h2` it speaks HTTP/2, which
//! the server has to know (RFC 9113, section 3.3); without, HTTP/1.1.

use std::error::Error;
use std::io::Write;

use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use lictor_http::{AnswerBody, Whole, http1, http2};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// The whole answer, its status first.
pub(crate) async fn get(url: &str, is_http2: bool) -> Result<Response<Vec<u8>>, Box<dyn Error>> {
    let target: Uri = url.parse()?;
    let authority = target.authority().ok_or("the URL names no host")?;
    let socket = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let request = Request::get(target).header("user-agent", "lictor-http").body(Whole::default())?;
    let answer = if is_http2 {
        let connection = http2::client::Connection::new(socket.into(), ());
        connection.ask(request).await?.map(AnswerBody::<Whole>::Http2)
    } else {
        let connection = http1::client::Connection::new(socket.into());
        connection.ask(request).await?.map(AnswerBody::Http1)
    };
    let (head, body) = answer.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes().into()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (flags, urls): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word == "--h2");
    let [url] = &urls[..] else { return Err("usage: get [--h2] URL".into()) };
    let answer = LocalSet::new().run_until(get(url, !flags.is_empty())).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{:?} {}", answer.version(), answer.status())?;
    for (name, value) in answer.headers() {
        writeln!(out, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
    }
    writeln!(out)?;
    out.write_all(answer.body())?;
    Ok(())
}

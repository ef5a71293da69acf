//! A server that speaks both versions on one port, told apart by what clients say first.
//!
//! `cargo run -p lictor-http --example hello`, then `curl http://127.0.0.1:8080/`, with `--http2-prior-knowledge` or not.

use std::future::pending;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use lictor_http::buffers::ReadAhead;
use lictor_http::fields::{self, Fields};
use lictor_http::sniff::{self, Spoken};
use lictor_http::stream::Stream;
use lictor_http::{Answerer, Refused, RequestBody, Whole, http1, http2};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

struct Hello;

impl Answerer for Hello {
    type Marks = ();
    type Body = Whole;

    async fn answer(self: Rc<Self>, request: Request<RequestBody>, fields: Fields) -> Response<Whole> {
        let (status, text) = match fields::check(&request, fields) {
            Ok(()) => (StatusCode::OK, format!("{} over {:?}\n", request.uri().path(), request.version()).into()),
            Err(why) => (StatusCode::BAD_REQUEST, Bytes::from(why)),
        };
        Response::builder().status(status).body(Whole(text)).expect("a status and a body")
    }

    fn refuse(&self, _: &'static str, refused: &Refused) -> Response<Bytes> {
        Response::builder().status(refused.status).body(refused.why.into()).expect("a status and a body")
    }
}

/// Serves one connection.
async fn serve(mut stream: Stream) {
    let mut read = ReadAhead::default();
    let (_drain, is_draining) = watch::channel(false);
    match sniff::version(&mut stream, &mut read).await {
        Ok(Some(Spoken::Http1)) => http1::server::serve(Rc::new(Hello), stream, read, None, is_draining).await,
        Ok(Some(Spoken::Http2)) => http2::server::serve(Rc::new(Hello), stream, read, pending()).await,
        Ok(None) | Err(_) => (), // it has ended without a word
    }
}

pub(crate) async fn listen(listener: TcpListener) -> io::Result<()> {
    loop {
        spawn_local(serve(listener.accept().await?.0.into()));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    LocalSet::new().run_until(async { listen(TcpListener::bind("127.0.0.1:8080").await?).await }).await
}

//! Connections and streams that are not HTTP's any more: upgrades (RFC 9110, section 7.8), CONNECT (section 9.3.6), and
//! CONNECT with a protocol (RFC 8441).

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use lictor_http::fields::Answered;
use lictor_http::http1::{self, Framing, Outgoing};
use lictor_http::http2::client::{Connection, Kind, SendError};
use lictor_http::http2::{Encoder, Protocol};
use lictor_http::stream::Stream;
use lictor_http::{AnswerBody, RequestBody, Whole};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::support::{Parts, local, pair, serve_http1, serve_http2, talk, until, whole};

/// Grants what is asked for, and says what comes back, until that ends.
async fn grant(mut request: Request<RequestBody>) -> Response<Parts> {
    let Some(handover) = request.body_mut().handover() else { return Response::new(whole("no")) };
    let status = if *request.method() == Method::CONNECT { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
    spawn_local(async move {
        let mut stream = handover.await.unwrap();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            stream.write_all(&bytes[..count]).await.unwrap();
            stream.flush().await.unwrap();
        }
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.shutdown().await.unwrap(); // a second time is none
    });
    let mut response = Response::builder().status(status);
    if let Some(upgrade) = request.headers().get("upgrade") {
        response = response.header("upgrade", upgrade);
    }
    response.body(whole("")).unwrap()
}

/// What is said comes back, in pieces of any size; a side that has said all still hears.
async fn converse(mut stream: Stream) {
    assert!(!stream.is_encrypted() && stream.alpn().is_none());
    for size in [1, 5000, 1 << 20] {
        let said = vec![b'x'; size];
        let (mut reading, mut writing) = tokio::io::split(stream);
        let mut heard = vec![0; size];
        let (wrote, read) = tokio::join!(writing.write_all(&said), reading.read_exact(&mut heard));
        wrote.unwrap();
        read.unwrap();
        assert_eq!(heard, said);
        stream = reading.unsplit(writing);
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye");
}

#[tokio::test]
async fn an_upgrade_hands_the_connection_over_with_what_was_said_already() {
    local(async {
        for ask in [
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        ] {
            let (server, mut client) = pair();
            let serving = serve_http1(server, &watch::Sender::new(false), None, grant);
            client.write_all(format!("{ask}ahead").as_bytes()).await.unwrap();
            let heard = until(&mut client, "\r\n\r\nahead").await;
            assert_eq!(heard.contains("upgrade: echo\r\n"), ask.starts_with("GET"), "{heard}");
            assert!(!heard.contains("content-length"), "{heard}");
            client.shutdown().await.unwrap();
            assert_eq!(talk(client, "").await, "bye");
            serving.await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_of_http11_has_the_connection_after_its_upgrade() {
    local(async {
        let (server, client) = pair();
        serve_http1(server, &watch::Sender::new(false), None, grant);
        let mut out = Outgoing::default();
        out.request_line(&Method::GET, "/");
        for (name, value) in [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "echo")] {
            out.line(name.as_bytes(), value.as_bytes());
        }
        out.end_head(Framing::None);
        let connection = http1::client::Connection::new(client.into());
        let sent = connection.send::<(), _>(out, Framing::None, Whole::default(), false, |_, _, _| ()).await;
        let Answered { response, .. } = sent.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        converse(AnswerBody::Http1(response.into_body()).into_stream()).await;
    })
    .await;
}

fn websocket(fields: &mut Encoder<'_>) {
    fields.method(&Method::CONNECT);
    fields.scheme(false);
    fields.authority(b"users");
    fields.path(b"/chat");
    fields.protocol(b"websocket");
}

#[tokio::test]
async fn a_stream_of_http2_carries_bytes_after_connect() {
    local(async {
        let (server, client) = pair();
        serve_http2(server, |request| async {
            let protocol = request.extensions().get::<Protocol>().map(|protocol| protocol.0.clone());
            assert_eq!(protocol.unwrap(), "websocket");
            grant(request).await
        });
        let client = Connection::new(client.into(), ());
        let sent = client.send::<(), _>(Kind::Connect, true, websocket, Whole::default(), |_, _| ()).await;
        let Answered { response, .. } = sent.unwrap();
        assert_eq!(response.status(), 200);
        converse(AnswerBody::<Whole>::Http2(response.into_body()).into_stream()).await;
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_is_dropped_ends_for_the_other_side_too() {
    local(async {
        let (server, client) = pair();
        let (told, gone) = tokio::sync::oneshot::channel();
        let told = std::cell::Cell::new(Some(told));
        serve_http2(server, move |mut request| {
            let told = told.take().unwrap();
            let handover = request.body_mut().handover().unwrap();
            spawn_local(async move {
                let mut stream = handover.await.unwrap();
                let ended = stream.read(&mut [0; 9]).await;
                let _ = told.send(ended.unwrap_or(0));
            });
            async { Response::new(whole("")) }
        });
        let client = Connection::new(client.into(), ());
        let sent = client.send::<(), _>(Kind::Connect, true, websocket, Whole::default(), |_, _| ()).await;
        drop(sent.unwrap().response.into_body().into_stream());
        assert_eq!(gone.await.unwrap(), 0);
    })
    .await;
}

/// RFC 8441, section 3.
#[tokio::test]
async fn a_server_that_takes_no_such_connect_is_not_asked() {
    local(async {
        let (mut server, client) = pair();
        server.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let client = Connection::new(client.into(), ());
        let sent = client.send::<(), _>(Kind::Connect, true, websocket, Whole::default(), |_, _| ()).await;
        assert!(matches!(sent.unwrap_err(), SendError::Malformed(why) if why.contains("RFC 8441")));
    })
    .await;
}

#[tokio::test]
async fn a_connect_that_is_refused_is_an_answer() {
    local(async {
        let (server, client) = pair();
        serve_http2(server, |_| async {
            Response::builder().status(StatusCode::NOT_IMPLEMENTED).body(whole("no tunnels")).unwrap()
        });
        let client = Connection::new(client.into(), ());
        let sent = client.send::<(), _>(Kind::Connect, true, websocket, Whole::default(), |_, _| ()).await;
        let response = sent.unwrap().response;
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no tunnels");

        let (server, client) = pair();
        serve_http1(server, &watch::Sender::new(false), None, |mut request| async move {
            let handover = request.body_mut().handover().unwrap();
            spawn_local(async move { assert!(handover.await.is_err(), "there is nothing to hand over") });
            Response::builder().status(StatusCode::NOT_IMPLEMENTED).body(whole("no")).unwrap()
        });
        let heard = talk(client, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n").await;
        assert!(heard.starts_with("HTTP/1.1 501 ") && heard.ends_with("\r\n\r\nno"), "{heard}");
    })
    .await;
}

//! Both versions over TLS, where what was agreed on tells them apart (RFC 7301).

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use http_body_util::BodyExt;
use lictor_http::buffers::ReadAhead;
use lictor_http::sniff::{self, Spoken};
use lictor_http::stream::{Socket, Stream};
use lictor_http::{AnswerBody, http1, http2};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{Parts, by, echo, local, pair, serve_http1, whole};

/// A server that takes both, and a client that wants this one.
fn sides(wanted: &[&[u8]]) -> (TlsAcceptor, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["users".to_owned()]).unwrap();
    let provider = Arc::new(ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let mut server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = wanted.iter().map(|name| name.to_vec()).collect();
    (Arc::new(server).into(), Arc::new(client).into())
}

async fn accept(acceptor: &TlsAcceptor, server: UnixStream) -> Stream {
    Stream::Accepted(Box::new(acceptor.accept(Socket::Unix(server)).await.unwrap()))
}

async fn dial(connector: &TlsConnector, client: UnixStream) -> Stream {
    let name = ServerName::try_from("users").unwrap();
    Stream::Dialled(Box::new(connector.connect(name, Socket::Unix(client)).await.unwrap()))
}

/// Echoes on a connection of either version.
async fn serve(mut stream: Stream) {
    assert!(stream.is_encrypted());
    let mut read = ReadAhead::default();
    match sniff::version(&mut stream, &mut read).await.unwrap().unwrap() {
        Spoken::Http1 => {
            let drain = watch::Sender::new(false);
            http1::server::serve(by(echo), stream, read, None, drain.subscribe()).await;
        }
        Spoken::Http2 => http2::server::serve(by(echo), stream, read, pending()).await,
    }
}

#[tokio::test]
async fn both_versions_pass_through_tls() {
    for wanted in [&[&b"h2"[..]][..], &[b"http/1.1"], &[]] {
        local(async {
            let (acceptor, connector) = sides(wanted);
            let (server, client) = pair();
            spawn_local(async move { serve(accept(&acceptor, server).await).await });
            let stream = dial(&connector, client).await;
            assert_eq!(stream.alpn(), wanted.first().copied());
            let much = vec![b'x'; 1 << 20];
            let request = Request::post("https://users/").body(whole(much.clone())).unwrap();
            let answer = if wanted == [b"h2"] {
                let connection = http2::client::Connection::new(stream, ());
                connection.ask(request).await.unwrap().map(AnswerBody::<Parts>::Http2)
            } else {
                let connection = http1::client::Connection::new(stream);
                connection.ask(request).await.unwrap().map(AnswerBody::Http1)
            };
            assert_eq!(answer.version() == Version::HTTP_2, wanted == [b"h2"]);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), much);
        })
        .await;
    }
}

#[tokio::test]
async fn what_tls_agreed_on_is_http_before_a_word() {
    let (acceptor, connector) = sides(&[b"http/1.1"]);
    let (server, client) = pair();
    let (mut server, client) = tokio::join!(accept(&acceptor, server), dial(&connector, client));
    let mut read = ReadAhead::default();
    assert!(sniff::is_http(&mut server, &mut read, Duration::from_secs(60)).await.unwrap());
    // What was read ahead comes first, and changes nothing else.
    let server = server.after(bytes::BytesMut::from("ahead"));
    assert!(server.is_encrypted() && server.alpn() == Some(b"http/1.1"));
    drop(client);
}

/// The end is said, so that it can be told from a cut (RFC 8446, section 6.1).
#[tokio::test]
async fn the_last_answer_over_tls_is_followed_by_the_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    local(async {
        let (acceptor, connector) = sides(&[b"http/1.1"]);
        let (server, client) = pair();
        let (server, mut client) = tokio::join!(accept(&acceptor, server), dial(&connector, client));
        serve_http1(server, &watch::Sender::new(false), None, echo);
        client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n").await.unwrap();
        client.flush().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap(); // an error, were it cut
        assert!(heard.ends_with("content-length: 0\r\n\r\n"), "{heard}");
    })
    .await;
}

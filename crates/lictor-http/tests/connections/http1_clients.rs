//! A client of HTTP/1.1, and raw servers.

use http::{Method, Request};
use http_body_util::BodyExt;
use lictor_http::Whole;
use lictor_http::http1::client::{Connection, SendError};
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_local;

use crate::support::{Parts, Then, local, pair, parts, until, whole};

/// A client whose server hears a request up to these words, and answers so.
fn client_of(heard: &'static str, answer: &'static str) -> Connection {
    let (mut server, client) = pair();
    spawn_local(async move {
        until(&mut server, heard).await;
        server.write_all(answer.as_bytes()).await.unwrap();
    });
    Connection::new(client.into())
}

fn request(method: Method, body: Parts) -> Request<Parts> {
    Request::builder().method(method).uri("http://users:81/a?b").header("x-mine", "1").body(body).unwrap()
}

/// RFC 9112, sections 3.2 and 6.3.
#[tokio::test]
async fn a_request_is_written_as_its_body_is_long() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (method, body, head) in [
        (Method::GET, whole(""), "GET /a?b HTTP/1.1\r\nhost: users:81\r\nx-mine: 1\r\n\r\n"),
        (Method::POST, whole(""), "POST /a?b HTTP/1.1\r\nhost: users:81\r\nx-mine: 1\r\ncontent-length: 0\r\n\r\n"),
        (Method::PUT, whole("some"), "x-mine: 1\r\ncontent-length: 4\r\n\r\nsome"),
        (Method::PUT, parts(["so", "me"]), "transfer-encoding: chunked\r\n\r\n2\r\nso\r\n2\r\nme\r\n0\r\n\r\n"),
        (
            Method::PUT,
            parts(["some"]).trailer("x-sum", "1"),
            "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
    ] {
        local(async {
            let answer = client_of(head, OK).ask(request(method, body)).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_lasts_until_an_answer_says_otherwise() {
    for (answer, is_kept) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok?", false),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\n\r\nok", false),
    ] {
        local(async {
            let answer = client_of("\r\n\r\n", answer).ask(request(Method::GET, whole(""))).await.unwrap();
            let mut body = answer.into_body();
            while let Some(frame) = body.frame().await {
                frame.unwrap();
            }
            let kept = body.into_connection();
            assert_eq!(kept.is_some(), is_kept);
            if let Some(mut kept) = kept {
                while !kept.is_stale() {
                    tokio::task::yield_now().await; // its server has gone
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_or_malformed_has_no_end() {
    for (answer, why) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "the connection ended within the body"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "the body is malformed: a chunk's size is not a number",
        ),
    ] {
        local(async {
            let answer = client_of("\r\n\r\n", answer).ask(request(Method::GET, whole(""))).await.unwrap();
            let mut body = answer.into_body();
            assert!(format!("{body:?}").contains("keeps_alive"), "{body:?}");
            let error = loop {
                match body.frame().await.unwrap() {
                    Ok(_) => (),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.to_string(), why);
            assert!(body.into_connection().is_none());
        })
        .await;
    }
}

#[tokio::test]
async fn why_there_is_no_answer_is_said() {
    let tell = async |body: Parts, answer: &'static str| {
        client_of("\r\n\r\n", answer).ask(request(Method::POST, body)).await.unwrap_err()
    };
    local(async {
        let broken = tell(parts(["some"]).then(Then::Break), "").await;
        assert_eq!(broken.to_string(), "the request's body has no end");
        assert!(matches!(tell(whole("some").sized(3), "").await, SendError::Body));
        assert!(matches!(tell(whole("some").sized(9), "").await, SendError::Body));
        let closed = tell(whole("some"), "").await;
        assert_eq!(closed.to_string(), "the connection ended before the answer");
        let malformed = tell(whole("some"), "SSH-2.0-OpenSSH_9.7\r\n").await;
        assert!(malformed.to_string().starts_with("the answer is not HTTP/1.1: "), "{malformed}");
        let (server, client) = pair();
        drop(server);
        let unsent = Connection::new(client.into()).ask(request(Method::GET, whole(""))).await.unwrap_err();
        assert_eq!(unsent.to_string(), "the connection ended before the request was sent");
    })
    .await;
}

/// A server may answer before it has all of the request (RFC 9112, section 9.3): the rest goes on meanwhile.
#[tokio::test]
async fn an_upload_goes_on_while_its_answer_comes() {
    local(async {
        let (mut server, client) = pair();
        spawn_local(async move {
            until(&mut server, "\r\n\r\n").await;
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await.unwrap();
            until(&mut server, "the last of it").await;
            server.write_all(b"done").await.unwrap();
        });
        let much = [vec![b'x'; 4 << 20], b"the last of it".to_vec()].concat();
        let answer = Connection::new(client.into()).ask(request(Method::POST, whole(much))).await.unwrap();
        let mut body = answer.into_body();
        let mut heard = Vec::new();
        while let Some(frame) = body.frame().await {
            heard.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(heard, b"done");
        assert!(body.into_connection().is_some());

        // One that never ends takes its connection with it.
        let (mut server, client) = pair();
        spawn_local(async move {
            until(&mut server, "\r\n\r\n").await;
            server.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            until(&mut server, "nothing more").await;
        });
        let endless = parts(["some"]).then(Then::Hang);
        let answer = Connection::new(client.into()).ask(request(Method::POST, endless)).await.unwrap();
        assert!(answer.into_body().into_connection().is_none());
    })
    .await;
}

#[test]
fn a_whole_body_is_one_part() {
    use http_body::Body;
    let body = Whole("some".into());
    assert_eq!((body.is_end_stream(), body.size_hint().exact()), (false, Some(4)));
    assert!(Whole::default().is_end_stream());
}

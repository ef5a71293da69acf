//! A server of HTTP/1.1, and raw clients.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use lictor_http::Spelling;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::{Then, echo, local, pair, parts, serve_http1, talk, until, whole};

const HTTP10: &str = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// RFC 9112, sections 6.3 and 9.3.
#[tokio::test]
async fn a_client_of_http10_learns_the_length_or_sees_the_end() {
    local(async {
        let (server, client) = pair();
        let drain = watch::Sender::new(false);
        let is_known = Cell::new(true);
        serve_http1(server, &drain, None, move |_| {
            let body = if is_known.replace(false) { whole("known") } else { parts(["un", "known"]) };
            async { Response::new(body) }
        });
        let heard = talk(client, &HTTP10.repeat(2)).await;
        let known = "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nknown";
        assert_eq!(heard, format!("{known}HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nunknown"));
    })
    .await;
}

/// RFC 9110, section 8.6 and RFC 9112, section 6.3.
#[tokio::test]
async fn an_answer_without_a_body_has_none_and_may_say_how_long_another_would_be() {
    for (method, status, size, expected) in [
        ("HEAD", 200, 5, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD", 200, 0, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"),
        ("GET", 304, 0, "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n"),
        ("GET", 204, 5, "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        ("GET", 200, 0, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
    ] {
        local(async {
            let (server, client) = pair();
            serve_http1(server, &watch::Sender::new(false), None, move |_| async move {
                Response::builder().status(status).body(whole("x".repeat(size))).unwrap()
            });
            assert_eq!(talk(client, &LAST.replace("GET", method)).await, expected, "{method} {status} {size}");
        })
        .await;
    }
}

/// RFC 9110, section 6.5.1.
#[tokio::test]
async fn trailers_go_to_who_takes_them() {
    for (te, end) in [("", "0\r\n\r\n"), ("TE: trailers\r\n", "0\r\nx-sum: 1\r\n\r\n")] {
        local(async {
            let (server, client) = pair();
            let answer = |_| async { Response::new(parts(["some"]).trailer("x-sum", "1")) };
            serve_http1(server, &watch::Sender::new(false), None, answer);
            let heard = talk(client, &format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{te}\r\n")).await;
            assert!(heard.ends_with(&format!("\r\n\r\n4\r\nsome\r\n{end}")), "{heard}");
        })
        .await;
    }
}

#[tokio::test]
async fn an_old_connection_and_one_that_drains_end_with_their_answer() {
    local(async {
        let (server, client) = pair();
        serve_http1(server, &watch::Sender::new(false), Some(Duration::ZERO), echo);
        assert!(talk(client, GET).await.contains("\r\nconnection: close\r\n"));

        let (server, client) = pair();
        let drain = Rc::new(watch::Sender::new(false));
        let draining = Rc::clone(&drain);
        serve_http1(server, &drain, None, move |_| {
            draining.send_replace(true);
            async { Response::new(whole("")) }
        });
        assert!(talk(client, GET).await.contains("\r\nconnection: close\r\n"));

        // One that is idle ends at once.
        let (server, mut client) = pair();
        let drain = watch::Sender::new(false);
        let serving = serve_http1(server, &drain, None, echo);
        client.write_all(GET.as_bytes()).await.unwrap();
        until(&mut client, "\r\n\r\n").await;
        drain.send_replace(true);
        serving.await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_half_a_head_is_not_waited_for_for_ever() {
    local(async {
        let began = Instant::now();
        let (server, client) = pair();
        serve_http1(server, &watch::Sender::new(false), None, echo);
        let heard = talk(client, "GET / HTTP/1.1\r\nHo").await;
        assert!(heard.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{heard}");
        assert!((30..32).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());

        // After a while of silence it has as long again for the head.
        let began = Instant::now();
        let (server, mut client) = pair();
        serve_http1(server, &watch::Sender::new(false), None, echo);
        tokio::time::sleep(Duration::from_secs(100)).await;
        client.write_all(b"GET").await.unwrap();
        let heard = talk(client, " ").await;
        assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
        assert!((130..132).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());

        let began = Instant::now();
        let (server, client) = pair();
        serve_http1(server, &watch::Sender::new(false), None, echo);
        assert_eq!(talk(client, "").await, "");
        assert!((3600..3602).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_answer_is_left() {
    for (silence, seconds) in [(None, 30), (Some(Duration::from_secs(7)), 7)] {
        local(async {
            let began = Instant::now();
            let (server, mut client) = pair();
            let serving = serve_http1(server, &watch::Sender::new(false), None, move |_| async move {
                let body = whole(vec![b'x'; 8 << 20]);
                Response::new(if let Some(silence) = silence { body.silent_for(silence) } else { body })
            });
            client.write_all(GET.as_bytes()).await.unwrap();
            serving.await.unwrap();
            assert_eq!(began.elapsed().as_secs(), seconds);
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_be_cut() {
    local(async {
        let (server, client) = pair();
        let answer = |_| async { Response::new(parts(["some"]).then(Then::Break)) };
        serve_http1(server, &watch::Sender::new(false), None, answer);
        let heard = talk(client, GET).await;
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n") && !heard.contains("0\r\n\r\n"), "{heard}");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_before_and_within_its_answer() {
    for is_answered in [false, true] {
        local(async {
            let (server, mut client) = pair();
            let serving = serve_http1(server, &watch::Sender::new(false), None, move |_| async move {
                if !is_answered {
                    pending::<()>().await;
                }
                Response::new(parts(["some"]).then(Then::Hang))
            });
            client.write_all(GET.as_bytes()).await.unwrap();
            if is_answered {
                until(&mut client, "some").await;
            }
            drop(client);
            serving.await.unwrap();
        })
        .await;
    }
}

/// RFC 9110, sections 10.1.1 and 15.2.
#[tokio::test]
async fn interim_answers_come_before_the_final_one_and_never_after_it() {
    local(async {
        let (server, mut client) = pair();
        let kept = Rc::new(Cell::new(None));
        let keeping = Rc::clone(&kept);
        let hints = HeaderMap::from_iter([(http::header::LINK, HeaderValue::from_static("</a.css>"))]);
        serve_http1(server, &watch::Sender::new(false), None, move |mut request| {
            let (keeping, hints) = (Rc::clone(&keeping), hints.clone());
            async move {
                let interim = request.body_mut().interim().unwrap();
                for _ in 0..20 {
                    interim.tell(StatusCode::EARLY_HINTS, &hints, &Spelling::default());
                }
                if let Some(earlier) = keeping.replace(Some(interim)) {
                    earlier.tell(StatusCode::PROCESSING, &hints, &Spelling::default());
                }
                assert!(request.body_mut().interim().is_none(), "it is taken");
                let body = request.into_body().collect().await.unwrap();
                Response::new(whole(body.to_bytes()))
            }
        });
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let heard = until(&mut client, "100 Continue\r\n\r\n").await;
        client.write_all(b"body").await.unwrap();
        let heard = heard + &until(&mut client, "body").await;
        assert_eq!(heard.matches("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").count(), 20, "{heard}");
        let heard = talk(client, LAST).await;
        assert_eq!(heard.matches("HTTP/1.1 1").count(), 20, "{heard}");
        assert!(!heard.contains("102"), "{heard}");
    })
    .await;
}

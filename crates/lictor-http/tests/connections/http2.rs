//! Both sides of HTTP/2 with each other, and each with a raw peer.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use lictor_http::buffers::ReadAhead;
use lictor_http::http2::client::{Connection, Kind, SendError};
use lictor_http::http2::{Encoder, PREFACE};
use lictor_http::{BodyError, RequestBody, Spelling};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};
use tokio::time::Instant;

use crate::support::{Parts, Then, echo, local, pair, parts, serve_http2, whole};

fn request(method: Method, body: Parts) -> Request<Parts> {
    Request::builder().method(method).uri("http://users:81/a?b").header("x-mine", "1").body(body).unwrap()
}

/// A client and its server, which answers so.
fn client_of<R: Future<Output = Response<Parts>> + 'static>(
    answer: impl Fn(Request<RequestBody>) -> R + 'static,
) -> Connection {
    let (server, client) = pair();
    serve_http2(server, answer);
    Connection::new(client.into(), ())
}

/// SETTINGS without anything.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn what_is_asked_is_what_is_heard() {
    local(async {
        let client = client_of(|request| async move {
            let told =
                format!("{} {} {}", request.method(), request.uri(), request.headers()["x-mine"].to_str().unwrap());
            Response::new(whole(told))
        });
        assert_eq!(client.max(), None);
        client.settled().await;
        assert!(client.max().is_some_and(|max| max >= 100), "{client:?}");
        let got = client.ask(request(Method::DELETE, whole(""))).await.unwrap().into_body();
        assert!(!client.is_closed());
        assert_eq!(got.collect().await.unwrap().to_bytes(), "DELETE http://users:81/a?b 1");
        assert_eq!(client.open(), 0);
        let head = client.ask(request(Method::HEAD, whole(""))).await.unwrap();
        assert_eq!(head.headers()["content-length"], "26");
        assert!(head.body().is_end_stream());
    })
    .await;
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    local(async {
        let client = client_of(echo);
        let sent = parts(["so", "me"]).trailer("x-sum", "1");
        let got = client.ask(request(Method::POST, sent)).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(got.trailers().unwrap()["x-sum"], "1");
        assert_eq!(got.to_bytes(), "some");
        let much = vec![b'x'; 3 << 20];
        let got = client.ask(request(Method::POST, whole(much.clone()))).await.unwrap().into_body();
        assert_eq!(got.collect().await.unwrap().to_bytes(), much);
    })
    .await;
}

/// A head that is longer than a frame goes on in CONTINUATION (RFC 9113, section 6.10).
#[tokio::test]
async fn a_long_head_is_put_together() {
    local(async {
        let client = client_of(|request| async move {
            let long = request.headers()["x-long"].clone();
            Response::builder().header("x-long", long).body(whole("")).unwrap()
        });
        let mut request = request(Method::GET, whole(""));
        let long = HeaderValue::try_from("x".repeat(40_000)).unwrap();
        request.headers_mut().insert("x-long", long.clone());
        assert_eq!(client.ask(request).await.unwrap().headers()["x-long"], long);
    })
    .await;
}

/// RFC 9113, section 6.8.
#[tokio::test]
async fn a_server_that_stops_answers_what_runs() {
    local(async {
        let (server, client) = pair();
        let (stop, stopped) = oneshot::channel::<()>();
        let (go, may_go) = oneshot::channel::<()>();
        let (may_go, has_come) = (Cell::new(Some(may_go)), Rc::new(Cell::new(false)));
        let coming = Rc::clone(&has_come);
        let answerer = crate::support::by(move |_| {
            let may_go = may_go.take().unwrap();
            coming.set(true);
            async {
                may_go.await.unwrap();
                Response::new(whole("done"))
            }
        });
        let serving = lictor_http::http2::server::serve(answerer, server.into(), ReadAhead::default(), async {
            let _ = stopped.await;
        });
        let serving = spawn_local(serving);
        let client = Rc::new(Connection::new(client.into(), ()));
        let asking = Rc::clone(&client);
        let asking = spawn_local(async move { asking.ask(request(Method::GET, whole(""))).await.unwrap() });
        until(|| has_come.get()).await;
        stop.send(()).unwrap();
        until(|| client.is_closed()).await;
        let unsent = client.ask(request(Method::GET, whole(""))).await.unwrap_err();
        assert_eq!(unsent.to_string(), "the connection ended before the request was sent");
        go.send(()).unwrap();
        assert_eq!(asking.await.unwrap().into_body().collect().await.unwrap().to_bytes(), "done");
        serving.await.unwrap();
    })
    .await;
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        yield_now().await;
    }
}

#[tokio::test]
async fn who_gives_up_resets_its_stream_and_no_other() {
    struct Told(Rc<Cell<u32>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    local(async {
        let gone = Rc::new(Cell::new(0));
        let told = Rc::clone(&gone);
        let client = client_of(move |request| {
            let told = Told(Rc::clone(&told));
            async move {
                let path = request.uri().path().to_owned();
                if path == "/silent" {
                    pending::<()>().await;
                }
                drop(told);
                Response::new(parts(["some"]).then(if path == "/hanging" { Then::Hang } else { Then::End }))
            }
        });
        let ask = |path| client.ask(Request::get(path).header("host", "users").body(whole("")).unwrap());
        // Before its answer, and within it.
        let mut silent = Box::pin(ask("/silent"));
        poll_fn(|context| Poll::Ready(silent.as_mut().poll(context).is_pending())).await;
        until(|| client.open() == 1).await;
        drop(ask("/hanging").await.unwrap());
        assert_eq!(gone.get(), 1);
        drop(silent);
        until(|| gone.get() == 2).await;
        let got = ask("/whole").await.unwrap().into_body().collect().await.unwrap();
        assert_eq!((got.to_bytes(), client.open()), (Bytes::from("some"), 0));
    })
    .await;
}

#[tokio::test]
async fn a_body_without_an_end_is_none_on_either_side() {
    local(async {
        let client = client_of(|request| async move {
            let whole = request.into_body().collect().await;
            assert!(whole.is_ok_and(|body| body.to_bytes().is_empty()), "only the second one is whole");
            Response::new(parts(["some"]).then(Then::Break))
        });
        let error = client.ask(request(Method::POST, parts(["some"]).then(Then::Break))).await.unwrap_err();
        assert_eq!(error.to_string(), "the request's body has no end");
        let got = client.ask(request(Method::GET, whole(""))).await.unwrap().into_body();
        assert_eq!(got.collect().await.unwrap_err(), BodyError::Cut);
    })
    .await;
}

/// RFC 9110, section 15.2: more than are kept for a client that has not read those before.
#[tokio::test]
async fn interim_answers_are_told_before_the_final_one() {
    local(async {
        let client = client_of(|mut request| async move {
            let interim = request.body_mut().interim().unwrap();
            let fields = [("link", "</a.css>"), ("connection", "x-hop"), ("x-hop", "1")];
            let fields = fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            for number in 0..40_u16 {
                let mut fields = HeaderMap::from_iter(fields.clone());
                fields.insert("x-number", number.into());
                interim.tell(StatusCode::EARLY_HINTS, &fields, &Spelling::default());
                if number < 4 {
                    yield_now().await;
                }
            }
            Response::new(whole("done"))
        });
        let mut told = Vec::new();
        let write = |fields: &mut Encoder<'_>| {
            fields.method(&Method::GET);
            fields.scheme(false);
            fields.authority(b"users");
            fields.path(b"/");
        };
        let answered = client.send::<(), _>(Kind::Other, true, write, whole(""), |status, headers| {
            assert!(headers.contains_key("link") && !headers.contains_key("x-hop"), "{headers:?}");
            told.push((status.as_u16(), headers["x-number"].to_str().unwrap().parse().unwrap()));
        });
        let answered = answered.await.unwrap();
        assert_eq!(answered.response.status(), 200);
        assert!(told.len() >= 16, "{told:?}");
        assert!(told.iter().enumerate().all(|(index, (status, _))| *status == 103 && index < 40));
        assert!(told.is_sorted_by_key(|(_, number): &(u16, u16)| *number), "{told:?}");
    })
    .await;
}

/// RFC 9110, section 10.1.1.
#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_when_its_body_is_wanted() {
    local(async {
        let client = client_of(echo);
        let mut request = request(Method::POST, whole("some"));
        request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
        let got = client.ask(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(got.to_bytes(), "some");
    })
    .await;
}

#[tokio::test]
async fn why_there_is_no_answer_is_said() {
    let ask = async |method, words: Vec<u8>| {
        let (mut server, client) = pair();
        spawn_local(async move {
            if words.is_empty() {
                return;
            }
            server.write_all(&words).await.unwrap();
            let mut heard = Vec::new();
            while !heard.windows(9).any(|part| part == b"\0\0\0\x04\x01\0\0\0\0") {
                if server.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        });
        Connection::new(client.into(), ()).ask(request(method, whole(""))).await.unwrap_err()
    };
    local(async {
        // What must not be done twice waits for the server's first word.
        assert_eq!(ask(Method::POST, Vec::new()).await, SendError::Unsent);
        let unfit = ask(Method::POST, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
        assert!(unfit.to_string().starts_with("the server does not speak HTTP/2: "), "{unfit}");
        assert_eq!(ask(Method::GET, SETTINGS.to_vec()).await, SendError::Closed);
        let reset = |code: u8| [SETTINGS, b"\0\0\x04\x03\0\0\0\0\x01\0\0\0", &[code]].concat();
        let refused = ask(Method::GET, reset(7)).await;
        assert_eq!(refused.to_string(), "the server has not looked at the request (REFUSED_STREAM)");
        let reset = ask(Method::GET, reset(2)).await;
        assert_eq!(reset.to_string(), "the server reset the request (INTERNAL_ERROR)");
    })
    .await;
}

/// A PING of ours (section 6.7).
const ASKED: &[u8] = b"\0\0\x08\x06\0\0\0\0\0lictor?\n";

/// Hears so much that it ends so, and says how long that took.
async fn hear(peer: &mut UnixStream, end: &[u8]) -> u64 {
    let began = Instant::now();
    let mut heard = Vec::new();
    while !heard.ends_with(end) {
        assert_ne!(peer.read_buf(&mut heard).await.unwrap(), 0, "{}", heard.escape_ascii());
    }
    began.elapsed().as_secs()
}

/// How long it takes until the other side closes.
async fn closes(peer: &mut UnixStream) -> u64 {
    let began = Instant::now();
    peer.read_to_end(&mut Vec::new()).await.unwrap();
    began.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_there_is_found_out_and_one_that_is_stays() {
    local(async {
        let (server, mut client) = pair();
        let serving = serve_http2(server, echo);
        client.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(hear(&mut client, ASKED).await, 30);
            client.write_all(b"\0\0\x08\x06\x01\0\0\0\0lictor?\n").await.unwrap();
        }
        assert_eq!(hear(&mut client, ASKED).await, 30);
        assert_eq!(closes(&mut client).await, 10);
        drop(client);
        serving.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_for_only_while_something_is_asked_of_it() {
    local(async {
        let (mut server, client) = pair();
        server.write_all(SETTINGS).await.unwrap();
        let client = Connection::new(client.into(), ());
        client.settled().await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!client.is_closed());
        let asking = spawn_local(async move { client.ask(request(Method::GET, whole(""))).await.unwrap_err() });
        let began = Instant::now();
        hear(&mut server, ASKED).await;
        assert_eq!(asking.await.unwrap(), SendError::Closed);
        assert!((10..52).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_asks_whether_its_server_is_there() {
    local(async {
        let (mut server, client) = pair();
        server.write_all(SETTINGS).await.unwrap();
        let client = Connection::new(client.into(), ());
        client.settled().await;
        let asked = client.ask(request(Method::GET, whole("")));
        assert!(tokio::time::timeout(Duration::from_secs(2), asked).await.is_err());
        assert_eq!(hear(&mut server, ASKED).await, 0);
        assert_eq!(closes(&mut server).await, 10);
        assert!(client.is_closed());
    })
    .await;
}

/// RFC 9113, section 10.5: a head without an end holds up everything behind it.
#[tokio::test(start_paused = true)]
async fn a_field_block_is_whole_in_time() {
    local(async {
        let (server, mut client) = pair();
        serve_http2(server, echo);
        let half = b"\0\0\x03\x01\x01\0\0\0\x01\x82\x86\x84";
        client.write_all(&[PREFACE, SETTINGS, half].concat()).await.unwrap();
        assert_eq!(hear(&mut client, b"a field block took too long").await, 30);
        assert_eq!(closes(&mut client).await, 0);
    })
    .await;
}

/// A raw client that has asked and has no window for the answer, nor takes it.
#[tokio::test(start_paused = true)]
async fn a_client_without_a_window_is_left_after_a_while() {
    local(async {
        let began = Instant::now();
        let (server, mut client) = pair();
        let answer = |_| async { Response::new(whole(vec![b'x'; 1 << 20]).silent_for(Duration::from_secs(3))) };
        serve_http2(server, answer);
        let get = b"\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84";
        client.write_all(&[PREFACE, SETTINGS, get].concat()).await.unwrap();
        // Everything up to RST_STREAM with CANCEL (section 7).
        let mut heard = Vec::new();
        while !heard.ends_with(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08") {
            assert_ne!(client.read_buf(&mut heard).await.unwrap(), 0);
        }
        assert_eq!(began.elapsed().as_secs(), 3);
    })
    .await;
}

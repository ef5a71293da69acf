//! The examples, with each other.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised; its helpers are part of it")]

use http::Version;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/get.rs"]
mod get;
#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/hello.rs"]
mod hello;

#[tokio::test]
async fn the_client_and_the_server_of_the_examples_understand_each_other_in_both_versions() {
    let asking = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(hello::listen(listener));
        for (is_http2, version) in [(false, Version::HTTP_11), (true, Version::HTTP_2)] {
            let answer = get::get(&format!("http://{address}/who?you"), is_http2).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
            assert_eq!(answer.body(), format!("/who over {version:?}\n").as_bytes());
        }
        let nowhere = get::get("/nowhere", false).await;
        assert_eq!(nowhere.unwrap_err().to_string(), "the URL names no host");
    };
    LocalSet::new().run_until(asking).await;
}

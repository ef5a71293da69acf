//! A connection's frames from a hostile peer.

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::super::frame::{self, Code, Head};
use super::super::hpack::Decoder;
use super::super::message::Message;
use super::send::OUT_MAX;
use super::state::{CLIENT_WINDOW, RESET_KEPT, SERVER_WINDOW, STREAMS_MAX};
use super::stream::STREAM_WINDOW;
use super::{Event, Fatal, Part, Shared, Turn, Wire};
use crate::framing::Kind;

/// What became of a connection.
#[derive(Debug, PartialEq)]
struct Outcome {
    written: Vec<u8>,
    events: Vec<String>,
    fatal: Option<Fatal>,
}

/// A client's frames: the windows hold, what is answered is well formed, and it is the same wherever the frames are
/// split. The first byte chooses what is done with a request and whether the frames are in short (see [`frames`]).
pub fn http2_server(bytes: &[u8]) {
    run(bytes, false);
}

/// A server's frames, to as many requests as the first byte says.
pub fn http2_client(bytes: &[u8]) {
    run(bytes, true);
}

fn run(bytes: &[u8], is_client: bool) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let is_short = choice & 1 == 0;
    let mut input = BytesMut::new();
    if is_short {
        if !is_client {
            input.extend_from_slice(frame::PREFACE);
        }
        if choice & 2 == 0 {
            frame::settings(&mut input, &[]);
        }
        input.extend_from_slice(&frames(bytes));
    } else {
        input.extend_from_slice(bytes);
    }
    let whole = outcome(&input, input.len(), *choice, is_client);
    for step in [1, 7, 1 + usize::from(*choice)] {
        assert_eq!(whole, outcome(&input, step, *choice, is_client), "in steps of {step}");
    }
    assert_well_formed(&whole.written, is_client);
}

fn outcome(input: &[u8], step: usize, choice: u8, is_client: bool) -> Outcome {
    let mut wire = Wire::new(is_client);
    let mut streams: Vec<Shared> = Vec::new();
    if is_client {
        for _ in 0..=choice >> 6 {
            let stream =
                wire.start(if choice & 4 != 0 { Kind::Head } else { Kind::Other }).expect("the connection is new");
            wire.write_fields(&mut stream.borrow_mut(), choice & 8 != 0, |fields| fields.path(b"/"));
            streams.push(stream);
        }
    }
    let (mut events, mut fatal, mut buffer) = (Vec::new(), None, BytesMut::new());
    'pieces: for piece in input.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match receive(&mut wire, &mut buffer) {
                Ok(None) => break,
                Ok(Some(Event::Request(request, stream))) => {
                    events.push(format!("{request:?}"));
                    assert_eq!(wire.window_of(&stream.borrow()), wire.peer.stream_window);
                    streams.push(stream);
                }
                Ok(Some(Event::Refused(status, why, unanswered))) => {
                    events.push(format!("{status} {why}"));
                    if let Some(unanswered) = unanswered {
                        wire.decline(unanswered, status, &HeaderMap::new());
                    }
                }
                Err(error) => {
                    fatal = Some(error);
                    wire.fail(error);
                    break 'pieces;
                }
            }
            assert_bounded(&wire);
        }
        assert_bounded(&wire);
    }
    // Only now: what is done in between depends on where the input is split.
    for (number, stream) in streams.iter().enumerate() {
        events.push(used(&mut wire, stream, (choice >> 2).wrapping_add(number as u8)));
        assert_bounded(&wire);
    }
    if choice & 16 != 0 {
        wire.shut_down();
    }
    if fatal.is_some() {
        assert!(wire.is_finished() && wire.streams.is_empty());
    }
    Outcome { written: wire.out.written(), events, fatal }
}

/// Takes frames in as many turns as that needs.
pub(super) fn receive(wire: &mut Wire, bytes: &mut BytesMut) -> Result<Option<Event>, Fatal> {
    loop {
        let mut turn = Turn::default();
        let event = wire.receive(bytes, &mut turn)?;
        if event.is_some() || !turn.is_over() {
            return Ok(event);
        }
    }
}

/// Reads a stream, answers on it, or gives it up.
fn used(wire: &mut Wire, shared: &Shared, choice: u8) -> String {
    let mut context = Context::from_waker(Waker::noop());
    let stream = &mut *shared.borrow_mut();
    let mut seen = format!("{:?} {:?} ", stream.id, stream.head.as_ref().map(http::Response::status));
    match choice % 4 {
        0 => wire.cancel(stream, Code::CANCEL),
        1 => wire.abandon(stream),
        _ => {
            while let Poll::Ready(Some(part)) = wire.poll_read(stream, &mut context) {
                match part {
                    Ok(Part::Data(data)) => seen.push_str(&format!("{data:?} ")),
                    Ok(Part::Trailers(trailers)) => seen.push_str(&format!("{trailers:?} ")),
                    Err(broken) => {
                        seen.push_str(&format!("{broken:?}"));
                        break;
                    }
                }
            }
        }
    }
    if wire.is_client || stream.broken.is_some() || stream.is_sent {
        return seen;
    }
    wire.write_fields(stream, false, |fields| fields.status(StatusCode::OK));
    for _ in 0..8 {
        let Poll::Ready(Ok(room)) = wire.poll_window(stream, &mut context) else { return seen };
        assert!(room > 0 && room as i64 <= wire.window_of(stream).min(wire.send_window), "more than the window");
        wire.write_data(stream, Bytes::from(vec![b'x'; room]), false);
    }
    seen
}

/// What a peer makes us keep is bounded, and so is what it may send.
fn assert_bounded(wire: &Wire) {
    if wire.is_over {
        return; // what ended it may be a window that is too large
    }
    assert!(wire.streams.len() <= STREAMS_MAX as usize && wire.reset.len() <= RESET_KEPT);
    assert!(wire.streams.is_sorted_by_key(|(id, _)| *id), "streams are found by number");
    let window = if wire.is_client { SERVER_WINDOW } else { CLIENT_WINDOW };
    assert!((0..=i64::from(window)).contains(&wire.recv_window) && wire.unreturned < window);
    assert!(wire.send_window <= frame::WINDOW_MAX);
    let mut kept = 0;
    for (id, stream) in &wire.streams {
        let Ok(stream) = stream.try_borrow() else { continue };
        assert_eq!(*id, stream.id);
        assert!((0..=i64::from(STREAM_WINDOW)).contains(&stream.recv_window) && stream.unreturned < STREAM_WINDOW);
        assert!(wire.window_of(&stream) <= frame::WINDOW_MAX && stream.broken.is_none());
        assert!(stream.credit <= wire.widest.max(0));
        assert!(stream.data.length <= STREAM_WINDOW as usize, "more than its window is kept");
        kept += stream.data.length;
    }
    assert!(kept <= window as usize && wire.out.len() < 4 * OUT_MAX + 16 * kept.max(OUT_MAX));
}

/// Only frames that we may send, whole, and field blocks that can be read.
fn assert_well_formed(mut written: &[u8], is_client: bool) {
    if is_client {
        written = written.strip_prefix(frame::PREFACE).expect("the preface comes first");
    }
    let (mut decoder, mut is_first) = (Decoder::default(), true);
    while !written.is_empty() {
        let head = Head::of(written).expect("a frame's head is whole");
        let (payload, rest) = written[frame::HEAD..].split_at_checked(head.length).expect("a frame is whole");
        written = rest;
        assert!(head.length <= frame::PAYLOAD_MAX && (!is_first || head.kind == frame::SETTINGS));
        is_first = false;
        match head.kind {
            frame::HEADERS => {
                let mut message = Message::new();
                let result = decoder.decode(payload, |field, size| message.take(field, size));
                assert_eq!(result, Ok(()));
                assert!(head.stream != 0 && (is_client || message.into_response().is_ok()));
            }
            frame::DATA => assert!(head.stream != 0),
            frame::RST_STREAM | frame::WINDOW_UPDATE => assert_eq!(head.length, 4),
            frame::SETTINGS => assert!(head.stream == 0 && head.length.is_multiple_of(6)),
            frame::PING => assert!(head.stream == 0 && head.length == 8),
            frame::GOAWAY => assert!(head.stream == 0 && head.length >= 8),
            kind => panic!("a frame of kind {kind}"),
        }
    }
}

/// Frames in short: each is a kind, flags, a stream, a length, and its payload. A length of 255 is that of the rest.
fn frames(mut bytes: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    while let [kind, flags, stream, length, rest @ ..] = bytes {
        let length = if *length == 255 { rest.len().min(16_384) } else { rest.len().min(usize::from(*length)) };
        frame::head(&mut out, length, kind % 12, *flags, u32::from(*stream));
        out.extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    out
}

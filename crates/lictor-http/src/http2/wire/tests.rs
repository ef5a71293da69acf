//! A wire without a socket: frames go in, tasks are wakers that keep their order.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame};
use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::channel::Channel;
use super::super::frame::{self, Code};
use super::super::outgoing::Outgoing;
use super::block::BLOCK_MAX;
use super::laws::receive;
use super::send::OUT_MAX;
use super::state::{RESET_KEPT, STREAM_LAST, STREAMS_MAX};
use super::stream::STREAM_WINDOW;
use super::turns::LET_ON_MAX;
use super::*;
use crate::framing::Kind;

const ENDS: u8 = frame::END_STREAM | frame::END_HEADERS;
const ANSWER: u8 = frame::END_HEADERS;

fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::settings(&mut out, pairs);
    out.to_vec()
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    bytes(frame::WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// `GET /`, and 200.
const GET: &[u8] = b"\x82\x86\x84";
const OK: &[u8] = b"\x88";

fn client(pairs: &[(u16, u32)]) -> Wire {
    let mut wire = Wire::new(true);
    take(&mut wire, &settings(pairs));
    wire.out = Output::default();
    wire
}

/// A server whose client has asked on so many streams.
fn server(pairs: &[(u16, u32)], streams: u32) -> Wire {
    let mut wire = Wire::new(false);
    take(&mut wire, &[frame::PREFACE, &settings(pairs)].concat());
    for index in 0..streams {
        take(&mut wire, &bytes(frame::HEADERS, ENDS, 2 * index + 1, GET));
    }
    wire.out = Output::default();
    wire
}

#[track_caller]
fn take(wire: &mut Wire, frames: &[u8]) -> Option<Event> {
    receive(wire, &mut BytesMut::from(frames)).unwrap()
}

/// A task that writes its number down when it is woken.
struct Task(u32, Arc<Mutex<Vec<u32>>>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.1.lock().push(self.0);
    }
}

#[test]
fn content_before_a_head_is_an_error_of_its_stream() {
    let mut wire = client(&[]);
    let stream = wire.start(Kind::Other).unwrap();
    wire.write_fields(&mut stream.borrow_mut(), true, |fields| fields.path(b"/"));
    take(&mut wire, &bytes(frame::DATA, frame::END_STREAM, 1, b"smuggled"));
    assert_eq!(stream.borrow().broken, Some(Broken::Malformed("content before a head")));
    assert_eq!(wire.open(), 0);
}

#[test]
fn an_answer_that_has_no_content_has_none() {
    for (kind, status) in [(Kind::Head, OK), (Kind::Other, &b"\x89"[..]), (Kind::Other, b"\x8b")] {
        let mut wire = client(&[]);
        let stream = wire.start(kind).unwrap();
        take(&mut wire, &bytes(frame::HEADERS, ANSWER, 1, status));
        assert_eq!(stream.borrow().broken, None);
        take(&mut wire, &bytes(frame::DATA, frame::END_STREAM, 1, b"x"));
        assert!(matches!(stream.borrow().broken, Some(Broken::Malformed(_))), "{kind:?} {status:?}");
    }
}

#[test]
fn a_length_says_nothing_of_a_tunnel() {
    let mut wire = client(&[(frame::ENABLE_CONNECT_PROTOCOL, 1)]);
    let stream = wire.start(Kind::Connect).unwrap();
    take(&mut wire, &bytes(frame::HEADERS, ANSWER, 1, b"\x88\x0f\x0d\x010"));
    take(&mut wire, &bytes(frame::DATA, 0, 1, b"bytes"));
    assert_eq!((stream.borrow().broken, stream.borrow().data.length), (None, 5));
}

#[test]
fn the_last_stream_closes_the_connection_to_others() {
    let mut wire = client(&[]);
    wire.newest = STREAM_LAST - 2;
    let stream = wire.start(Kind::Other).unwrap();
    assert_eq!((stream.borrow().id, wire.is_closing), (STREAM_LAST, true));
    assert_eq!(wire.start(Kind::Other).unwrap_err(), Unstarted::Closed);
}

#[test]
fn no_stream_begins_above_the_peers_limit() {
    let mut wire = client(&[(frame::MAX_CONCURRENT_STREAMS, 2)]);
    let first = wire.start(Kind::Other).unwrap();
    wire.start(Kind::Other).unwrap();
    assert_eq!(wire.start(Kind::Other).unwrap_err(), Unstarted::Full);
    wire.cancel(&mut first.borrow_mut(), Code::CANCEL);
    wire.start(Kind::Other).unwrap();
    take(&mut wire, &settings(&[(frame::MAX_CONCURRENT_STREAMS, 0)]));
    assert_eq!((wire.start(Kind::Other).unwrap_err(), wire.open()), (Unstarted::Full, 2));
}

#[test]
fn a_stream_that_has_had_room_waits_behind_the_others() {
    let mut wire = server(&[(frame::INITIAL_WINDOW_SIZE, 1 << 30)], 4);
    take(&mut wire, &window(0, 1 << 30));
    let woken = Arc::new(Mutex::new(Vec::new()));
    let streams: Vec<Shared> = (0..4).map(|index| wire.find(2 * index + 1).unwrap()).collect();
    let mut order: Vec<u32> = vec![1, 3, 5, 7];
    let mut wrote = Vec::new();
    for _ in 0..8 {
        for id in order {
            let stream = &mut *streams[id as usize / 2].borrow_mut();
            let waker = Waker::from(Arc::new(Task(id, Arc::clone(&woken))));
            let context = &mut Context::from_waker(&waker);
            while let Poll::Ready(Ok(count)) = wire.poll_window(stream, context) {
                wire.write_data(stream, Bytes::from(vec![0; count]), false);
                wrote.push(id);
            }
        }
        wrote.dedup();
        wire.out = Output::default();
        assert!(!wire.let_on());
        order = std::mem::take(&mut *woken.lock());
    }
    assert_eq!(wrote, [1, 3, 5, 7, 1, 3, 5, 7]);
}

#[test]
fn nothing_is_written_on_a_stream_that_is_over() {
    let mut wire = server(&[], 1);
    let stream = wire.find(1).unwrap();
    wire.write_fields(&mut stream.borrow_mut(), false, |fields| fields.status(StatusCode::OK));
    take(&mut wire, &bytes(frame::RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    wire.out = Output::default();
    let channel = Channel { wire: Rc::new(RefCell::new(wire)), stream };
    let mut trailers = HeaderMap::new();
    trailers.insert("x-a", HeaderValue::from_static("b"));
    let mut outgoing = Outgoing::new(Once(Some(Frame::trailers(trailers))));
    let sent = outgoing.poll(&channel, &mut Context::from_waker(Waker::noop()));
    assert!(matches!(sent, Poll::Ready(Err(_))), "{sent:?}");
    assert_eq!(channel.wire.borrow().out.written(), b"");
}

/// A body of one frame.
#[derive(Debug)]
struct Once(Option<Frame<Bytes>>);

impl Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

#[test]
fn a_server_whose_answers_nobody_reads_may_still_send_others() {
    // 250 streams are full, which nobody reads: what is left is for the others.
    let mut wire = client(&[]);
    for index in 0..250 {
        wire.start(Kind::Other).unwrap();
        take(&mut wire, &bytes(frame::HEADERS, ANSWER, 2 * index + 1, OK));
        for _ in 0..STREAM_WINDOW / 16_384 {
            take(&mut wire, &bytes(frame::DATA, 0, 2 * index + 1, &vec![0; 16_384]));
        }
    }
    let last = wire.start(Kind::Other).unwrap();
    take(&mut wire, &bytes(frame::HEADERS, ANSWER, 501, OK));
    take(&mut wire, &bytes(frame::DATA, frame::END_STREAM, 501, b"hello"));
    assert_eq!((last.borrow().data.length, last.borrow().broken), (5, None));
}

#[test]
fn goaway_wakes_who_waits_to_begin() {
    let mut wire = client(&[]);
    let woken = Arc::new(Mutex::new(Vec::new()));
    let waker = Waker::from(Arc::new(Task(7, Arc::clone(&woken))));
    wire.out.buffer().resize(OUT_MAX, 0);
    assert!(wire.poll_start(&mut None, false, &mut Context::from_waker(&waker)).is_pending());
    take(&mut wire, &bytes(frame::GOAWAY, 0, 0, &[0; 8]));
    assert_eq!(*woken.lock(), [7]);
}

/// A server whose streams all wait to write, with the numbers of those that were woken since.
fn waiting(mut wire: Wire) -> (Wire, Vec<Shared>, Arc<Mutex<Vec<u32>>>) {
    let woken = Arc::new(Mutex::new(Vec::new()));
    let streams: Vec<Shared> = wire.streams.iter().map(|(_, stream)| Rc::clone(stream)).collect();
    for stream in &streams {
        wait(&mut wire, stream, &woken);
    }
    (wire, streams, woken)
}

fn wait(wire: &mut Wire, stream: &Shared, woken: &Arc<Mutex<Vec<u32>>>) {
    let stream = &mut *stream.borrow_mut();
    let waker = Waker::from(Arc::new(Task(stream.id, Arc::clone(woken))));
    assert!(wire.poll_window(stream, &mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn a_frame_touches_no_stream_but_its_own_however_many_are_open() {
    let windows: Vec<_> = (0..2730).map(|index| (frame::INITIAL_WINDOW_SIZE, 1 + index % 2)).collect();
    let floods: [(&str, Vec<u8>); 13] = [
        ("SETTINGS full of windows", settings(&windows)),
        ("SETTINGS of one window", settings(&[(frame::INITIAL_WINDOW_SIZE, 9)])),
        ("SETTINGS of less", settings(&[(frame::INITIAL_WINDOW_SIZE, 0)])),
        ("empty SETTINGS", settings(&[])),
        ("SETTINGS of everything else", settings(&[(1, 0), (2, 0), (3, 9), (5, 16_384), (6, 9), (8, 1), (99, 9)])),
        ("the connection's window", window(0, 1)),
        ("the stream's window", window(1, 1)),
        ("PING", bytes(frame::PING, 0, 0, &[0; 8])),
        ("PRIORITY", bytes(frame::PRIORITY, 0, 1, &[0; 5])),
        ("GOAWAY", bytes(frame::GOAWAY, 0, 0, &[0; 8])),
        ("empty DATA for a stream that is reset", bytes(frame::DATA, frame::END_STREAM, 3, b"")),
        ("HEADERS for a stream that is reset", bytes(frame::HEADERS, ENDS, 3, GET)),
        ("a frame nobody knows", bytes(0xfa, 0, 1, b"")),
    ];
    for (what, piece) in floods {
        let (mut wire, streams, woken) = waiting(server(&[(frame::INITIAL_WINDOW_SIZE, 0)], STREAMS_MAX));
        wire.cancel(&mut streams[1].borrow_mut(), Code::CANCEL);
        woken.lock().clear();
        let others: Vec<_> = streams[2..].iter().map(|stream| stream.borrow_mut()).collect();
        for _ in 0..100 {
            take(&mut wire, &piece);
        }
        assert!(woken.lock().len() <= 1, "{what}");
        drop(others);
        wire.let_on();
        assert!(woken.lock().len() <= 1 + LET_ON_MAX, "{what}");
    }
}

#[test]
fn a_turn_ends_by_what_was_done_in_it() {
    let kinds: [(&str, Vec<u8>, usize); 5] = [
        ("PRIORITY", bytes(frame::PRIORITY, 0, 1, &[0; 5]), 1024),
        ("a frame nobody knows", bytes(0xfa, 0, 1, b""), 1024),
        ("a window", window(1, 1), 1024),
        ("SETTINGS full of windows", settings(&vec![(frame::INITIAL_WINDOW_SIZE, 9); 2730]), 17),
        ("DATA", bytes(frame::DATA, 0, 5, &[0; 15_000]), 18),
    ];
    for (what, piece, most) in kinds {
        let mut wire = server(&[], 2);
        take(&mut wire, &bytes(frame::HEADERS, frame::END_HEADERS, 5, b"\x83\x86\x84"));
        let (mut read, mut turn) = (BytesMut::from(&piece.repeat(2000)[..]), Turn::default());
        let whole = read.len();
        let result = wire.receive(&mut read, &mut turn);
        let count = (whole - read.len()) / piece.len();
        assert!(turn.is_over() && count <= most && result.is_ok_and(|event| event.is_none()), "{what}: {count}");
    }
}

#[test]
fn a_request_is_more_of_a_turn_than_a_frame() {
    let mut wire = server(&[], 0);
    let requests: Vec<u8> = (0..100).flat_map(|index| bytes(frame::HEADERS, ENDS, index * 2 + 1, GET)).collect();
    let (mut read, mut turn, mut count) = (BytesMut::from(&requests[..]), Turn::default(), 0);
    while wire.receive(&mut read, &mut turn).unwrap().is_some() {
        count += 1;
    }
    assert!((30..=40).contains(&count) && turn.is_over(), "{count}");
}

#[test]
fn a_window_lets_as_many_on_as_it_is_for() {
    for (by, first) in [(1, 1), (10 << 10, 10), (1 << 30, LET_ON_MAX)] {
        let mut wire = server(&[(frame::INITIAL_WINDOW_SIZE, 1 << 20)], STREAMS_MAX);
        wire.send_window = 0;
        let (mut wire, streams, woken) = waiting(wire);
        assert!(!wire.let_on() && woken.lock().is_empty());
        take(&mut wire, &window(0, by));
        assert!(wire.let_on());
        assert_eq!(woken.lock().len(), first, "{by}");
        // Who was woken does not want it any more: then it is for the others, each once and in their order.
        while wire.let_on() {}
        let ids: Vec<u32> = streams.iter().map(|stream| stream.borrow().id).collect();
        assert_eq!(*woken.lock(), ids, "{by}");
    }
    // And once it is used, for nobody.
    let mut wire = server(&[(frame::INITIAL_WINDOW_SIZE, 1 << 20)], STREAMS_MAX);
    wire.send_window = 0;
    let (mut wire, streams, woken) = waiting(wire);
    take(&mut wire, &window(0, 1));
    assert!(wire.let_on());
    wire.write_data(&mut streams[0].borrow_mut(), Bytes::from_static(b"x"), false);
    assert!(!wire.let_on());
    assert_eq!(*woken.lock(), [1]);
}

#[test]
fn settings_let_all_streams_on_a_few_in_a_turn() {
    let (mut wire, streams, woken) = waiting(server(&[(frame::INITIAL_WINDOW_SIZE, 0)], STREAMS_MAX));
    take(&mut wire, &settings(&[(frame::INITIAL_WINDOW_SIZE, 9)]));
    let mut turns = 1;
    while wire.let_on() {
        turns += 1;
        assert!(woken.lock().len() <= turns * LET_ON_MAX);
    }
    assert_eq!((turns, woken.lock().len()), (STREAMS_MAX as usize / LET_ON_MAX + 1, streams.len()));
    woken.lock().clear();
    // Nobody waits for its window now; those whom it was taken from wait on.
    take(&mut wire, &settings(&[(frame::INITIAL_WINDOW_SIZE, 10)]));
    take(&mut wire, &settings(&[(frame::INITIAL_WINDOW_SIZE, 0)]));
    while wire.let_on() {}
    assert!(woken.lock().is_empty());
    for stream in &streams {
        wait(&mut wire, stream, &woken);
    }
    take(&mut wire, &window(2 * STREAMS_MAX - 1, 1));
    assert_eq!(*woken.lock(), [2 * STREAMS_MAX - 1]);
}

#[test]
fn a_window_that_settings_make_too_large_ends_the_connection() {
    const MOST: u32 = (1 << 31) - 1;
    let flow = Err(Code::FLOW_CONTROL_ERROR);
    let cases: [(&str, Vec<u8>, Result<(), Code>); 5] = [
        ("as large as may be", settings(&[(4, 9)]), Ok(())),
        ("larger", settings(&[(4, 10)]), flow),
        ("larger for a moment", settings(&[(4, 10), (4, 0)]), flow),
        ("above all", settings(&[(4, 0), (4, MOST + 1)]), flow),
        ("another mistake after it", settings(&[(4, 0), (2, 2)]), Err(Code::PROTOCOL_ERROR)),
    ];
    for (what, frames, outcome) in cases {
        let mut wire = server(&[(frame::INITIAL_WINDOW_SIZE, 0)], 2);
        take(&mut wire, &window(3, MOST - 9));
        let seen = receive(&mut wire, &mut BytesMut::from(&frames[..]));
        assert_eq!(seen.map(|_| ()).map_err(|Fatal(code, _)| code), outcome, "{what}");
    }
    // The stream that had the most is gone: the others are looked at, but not for ever.
    let mut wire = server(&[(frame::INITIAL_WINDOW_SIZE, 0)], STREAMS_MAX);
    let mut looks = 0;
    let fatal = loop {
        wire.widest = i64::from(MOST);
        match receive(&mut wire, &mut BytesMut::from(&settings(&[(4, 1)])[..])) {
            Ok(_) => looks += 1,
            Err(Fatal(code, _)) => break code,
        }
        wire.calm.replies = 0;
    };
    assert_eq!((fatal, looks), (Code::ENHANCE_YOUR_CALM, 1000));
}

#[test]
fn who_asks_again_whether_a_stream_may_begin_waits_once() {
    let mut wire = client(&[]);
    let woken = Arc::new(Mutex::new(Vec::new()));
    wire.out.buffer().resize(OUT_MAX, 0);
    for id in 0..200 {
        let (waker, mut ticket) = (Waker::from(Arc::new(Task(id, Arc::clone(&woken)))), None);
        for _ in 0..10 {
            assert!(wire.poll_start(&mut ticket, false, &mut Context::from_waker(&waker)).is_pending());
        }
    }
    // Settings let nobody on who waits for room.
    take(&mut wire, &settings(&[]));
    assert!(!wire.let_on() && woken.lock().is_empty());
    wire.out = Output::default();
    wire.starters.admit();
    let turns = 1 + std::iter::repeat_with(|| wire.let_on()).take_while(|more| *more).count();
    assert_eq!((turns, woken.lock().len()), (4, 200));
}

/// What is kept for a peer that reads nothing: windows, a field block, a table, and answers to frames for which
/// [`Calm`] has limits.
fn is_bounded(wire: &Wire) -> bool {
    let kept: usize = wire.streams.iter().map(|(_, stream)| stream.borrow().data.length).sum();
    let block = wire.block.as_ref().map_or(0, |block| block.bytes.len());
    kept <= wire.window as usize
        && block <= BLOCK_MAX
        && wire.out.len() <= OUT_MAX + 200_000
        && wire.streams.len() <= STREAMS_MAX as usize
        && wire.reset.len() <= RESET_KEPT
        && wire.recv_window <= i64::from(wire.window)
}

/// Lets a wire take this as a socket might give it, in pieces; streams are read, given up or left alone meanwhile.
fn feed(mut wire: Wire, input: &[u8], pieces: &[usize], acts: &[u8]) -> Result<(), TestCaseError> {
    let context = &mut Context::from_waker(Waker::noop());
    let mut read = BytesMut::new();
    let mut acts = acts.iter().cycle();
    let mut pieces = pieces.iter().cycle();
    let mut rest = input;
    let mut seen: Vec<Shared> = wire.streams.iter().map(|(_, stream)| Rc::clone(stream)).collect();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*pieces.next().unwrap_or(&1)));
        rest = after;
        read.extend_from_slice(piece);
        loop {
            match receive(&mut wire, &mut read) {
                Ok(Some(Event::Request(_, stream))) => seen.push(stream),
                Ok(Some(Event::Refused(..))) => (),
                Ok(None) => break,
                Err(fatal) => {
                    wire.fail(fatal);
                    prop_assert!(wire.streams.is_empty() && seen.iter().all(is_told));
                    return Ok(());
                }
            }
        }
        prop_assert!(is_bounded(&wire));
        prop_assert!(read.len() < frame::HEAD + frame::PAYLOAD_MAX);
        let Some(stream) = seen.get(usize::from(*acts.next().unwrap_or(&0)) % seen.len().max(1)) else { continue };
        let act = acts.next().unwrap_or(&0) % 6;
        if act == 5 {
            wire.let_on();
            continue;
        }
        let stream = &mut *stream.borrow_mut();
        match act {
            0 => while let Poll::Ready(Some(Ok(_))) = wire.poll_read(stream, context) {},
            1 => wire.cancel(stream, Code::CANCEL),
            2 => wire.abandon(stream),
            3 => {
                while let (false, Poll::Ready(Ok(count))) = (stream.is_sent, wire.poll_window(stream, context)) {
                    wire.write_data(stream, Bytes::from(vec![0; count]), count < 9);
                }
            }
            _ => wire.out = Output::default(),
        }
    }
    // Nothing that came is lost from the windows.
    for stream in &seen {
        wire.cancel(&mut stream.borrow_mut(), Code::CANCEL);
    }
    prop_assert_eq!(wire.recv_window + i64::from(wire.unreturned), i64::from(wire.window));
    prop_assert!(wire.streams.is_empty());
    Ok(())
}

/// A stream of a connection that has ended is whole, or says why it is not.
fn is_told(stream: &Shared) -> bool {
    let stream = stream.borrow();
    stream.broken.is_some() || (stream.is_ended && stream.is_sent)
}

/// A frame that is nearly always one, on a stream that often exists.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![6 => select(vec![1_u32, 3, 5, 7, 9]), 1 => 0_u32..20, 1 => any::<u32>()];
    let block = prop_oneof![
        4 => Just(GET.to_vec()),
        4 => Just(OK.to_vec()),
        2 => Just(b"\x83\x86\x84\x0f\x0d\x0210".to_vec()),
        2 => Just(b"\x40\x03x-a\x01b".to_vec()),
        1 => Just(b"\x08\x03103\x40\x03x-a\x01b\xbe".to_vec()),
        1 => vec(any::<u8>(), 0..40),
    ];
    let word = prop_oneof![select(vec![0_u32, 1, 5, 7, 8, 0x7fff_ffff, 16_384, 65_535]), any::<u32>()];
    let payload = prop_oneof![
        4 => block,
        4 => word.clone().prop_map(|word| word.to_be_bytes().to_vec()),
        2 => (0_u16..10, word).prop_map(|(name, word)| [&name.to_be_bytes()[..], &word.to_be_bytes()].concat()),
        2 => (0_usize..16_500).prop_map(|length| vec![2; length]),
        2 => Just(vec![0; 8]),
        1 => Just(Vec::new()),
    ];
    let flags = prop_oneof![select(vec![0_u8, 1, 4, 5, 8, 12, 0x25]), any::<u8>()];
    let kind = prop_oneof![4 => select(vec![0_u8, 1]), 4 => 2_u8..12];
    (kind, flags, stream, payload).prop_map(|(kind, flags, stream, payload)| bytes(kind, flags, stream, &payload))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_taken_or_refused_within_bounds(
        is_client in any::<bool>(), input in vec(any::<u8>(), 0..2000), pieces in vec(1_usize..300, 1..9), acts in vec(any::<u8>(), 1..20)
    ) {
        let wire = if is_client { client(&[]) } else { server(&[], 2) };
        feed(wire, &input, &pieces, &acts)?;
    }

    #[test]
    fn any_frames_are_taken_or_refused_within_bounds(
        is_client in any::<bool>(), frames in vec(any_frame(), 0..60), pieces in vec(1_usize..20_000, 1..9), acts in vec(any::<u8>(), 1..20)
    ) {
        let mut wire = if is_client { client(&[]) } else { server(&[], 3) };
        for kind in [Kind::Other, Kind::Head, Kind::Connect].into_iter().filter(|_| is_client) {
            wire.start(kind).unwrap();
        }
        feed(wire, &frames.concat(), &pieces, &acts)?;
    }

    #[test]
    fn a_mutated_exchange_is_taken_or_refused_within_bounds(
        at in any::<prop::sample::Index>(), bits in 1_u8.., cut in any::<prop::sample::Index>(), pieces in vec(1_usize..100, 1..9), acts in vec(any::<u8>(), 1..20)
    ) {
        let mut input = [
            bytes(frame::HEADERS, ENDS, 101, GET),
            bytes(frame::HEADERS, 0, 103, b"\x83\x86"),
            bytes(frame::CONTINUATION, frame::END_HEADERS, 103, b"\x84\x40\x03x-a\x01b"),
            bytes(frame::DATA, frame::PADDED, 103, b"\x03content\0\0\0"),
            window(103, 9),
            settings(&[(frame::INITIAL_WINDOW_SIZE, 9), (frame::HEADER_TABLE_SIZE, 0)]),
            bytes(frame::PING, 0, 0, b"12345678"),
            bytes(frame::HEADERS, ENDS, 103, b"\xbe"),
            bytes(frame::RST_STREAM, 0, 101, &8_u32.to_be_bytes()),
            bytes(frame::GOAWAY, 0, 0, &[0; 8]),
        ].concat();
        let at = at.index(input.len());
        input[at] ^= bits;
        input.truncate(cut.index(input.len()) + 1);
        feed(server(&[], 2), &input, &pieces, &acts)?;
    }
}

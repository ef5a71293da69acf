//! The translation as a whole, on `examples/library.proto`.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value as Json, json};

use super::super::grpc::Status;
use super::*;

const LIBRARY: &[u8] = include_bytes!("../../../../../examples/library.pb");

fn terms() -> Terms {
    Terms { services: vec!["library.v1.Library".to_owned()], ..Terms::default() }
}

fn library() -> Transcode {
    Transcode::new(LIBRARY, terms()).unwrap()
}

fn mapped(request: &str, call: &str) -> Mapped {
    let (method, template) = request.split_once(' ').unwrap();
    Mapped {
        method: method.parse().unwrap(),
        template: template.to_owned(),
        call: call.to_owned(),
        body: None,
        response_body: None,
        status: StatusCode::OK,
    }
}

/// The method's path, and what its message says in JSON; or why there is none.
fn asked_of(transcode: &Transcode, request: &str, body: &str) -> Result<(String, Json), String> {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let method: Method = method.parse().unwrap();
    let (binding, segments) = transcode.find(&method, path).ok_or("no method")?;
    let binding = Arc::clone(binding);
    let call = binding.call(&segments, query)?;
    let frame = binding.message(call, body.as_bytes())?;
    assert_eq!(frame[..5], [&[0], &(frame.len() as u32 - 5).to_be_bytes()[..]].concat());
    let message = DynamicMessage::decode(binding.method.input(), &frame[5..]).unwrap();
    let name = binding.path.rsplit('/').next().unwrap().to_owned();
    Ok((name, serde_json::to_value(message).unwrap()))
}

fn asked(request: &str, body: &str) -> Result<(String, Json), String> {
    asked_of(&library(), request, body)
}

#[test]
fn a_request_becomes_its_methods_message() {
    for (request, body, method, message) in [
        ("GET /v1/shelves/1", "", "GetShelf", json!({"name": "shelves/1"})),
        ("GET /v1/shelf/a%20b%2Fc", "", "GetShelf", json!({"name": "a b/c"})),
        ("GET /v1/shelves/1/", "", "GetShelf", json!({"name": "shelves/1"})),
        ("DELETE /v1/shelves/1", "", "DeleteShelf", json!({"name": "shelves/1"})),
        ("PURGE /v1/shelves/1", "", "PurgeShelf", json!({"name": "shelves/1"})),
        ("GET /v1/files/a/b/c.txt", "", "ReadFile", json!({"name": "a/b/c.txt"})),
        ("GET /v1/shelves", "", "ListShelves", json!({})),
        ("GET /v1/shelves?page_size=7", "", "ListShelves", json!({"pageSize": 7})),
        ("GET /v1/shelves?pageSize=7&", "", "ListShelves", json!({"pageSize": 7})),
        ("GET /v1/shelves:watch?page_size=1", "", "WatchShelves", json!({"pageSize": 1})),
        (
            "POST /v1/shelves?shelf_id=a+b%2B",
            r#"{"name": "x", "size": "5"}"#,
            "CreateShelf",
            json!({"shelf": {"name": "x", "size": "5"}, "shelfId": "a b+"}),
        ),
        ("POST /v1/shelves", "", "CreateShelf", json!({})),
        ("POST /v1/shelves", "null", "CreateShelf", json!({})),
        (
            "PATCH /v1/shelves/1/books/2?update_mask=title,bookName",
            r#"{"title": "t"}"#,
            "UpdateBook",
            json!({"book": {"name": "shelves/1/books/2", "title": "t"}, "updateMask": "title,bookName"}),
        ),
        (
            "PATCH /v1/shelves/1/books/2",
            r#"{"name": "shelves/1/books/2", "title": "t"}"#,
            "UpdateBook",
            json!({"book": {"name": "shelves/1/books/2", "title": "t"}}),
        ),
        (
            "POST /v1/shelves/1/books/2:move",
            r#"{"to": "shelves/3"}"#,
            "MoveBook",
            json!({"name": "shelves/1/books/2", "to": "shelves/3"}),
        ),
        ("POST /v1/shelves/1/books/2:move", " \n", "MoveBook", json!({"name": "shelves/1/books/2"})),
        ("GET /v1/types/x/5", "", "Echo", json!({"nested": {"text": "x"}, "int64": "5"})),
    ] {
        assert_eq!(asked(request, body), Ok((method.to_owned(), message)), "{request} {body}");
    }
}

#[test]
fn parameters_are_fields_by_their_paths() {
    for (query, message) in [
        (
            "bool=true&int32=-3&int64=9223372036854775807&uint32=4",
            json!({"bool": true, "int32": -3, "int64": "9223372036854775807", "uint32": 4}),
        ),
        ("uint64=18446744073709551615&double=1.5&string=", json!({"uint64": "18446744073709551615", "double": 1.5})),
        ("double=Infinity&float=NaN", json!({"double": "Infinity", "float": "NaN"})),
        ("string=a%26b%3Dc&string=", Json::Null),
        ("bytes=-_8%3D", json!({"bytes": "+/8="})),
        ("bytes=%2B%2F8", json!({"bytes": "+/8="})),
        ("color=COLOR_RED", json!({"color": "COLOR_RED"})),
        ("color=2", json!({"color": "COLOR_GREEN"})),
        ("colors=1&colors=COLOR_GREEN", json!({"colors": ["COLOR_RED", "COLOR_GREEN"]})),
        ("texts=a&texts=b&texts=a", json!({"texts": ["a", "b", "a"]})),
        (
            "nested.text=a&nested.inner.text=b&nested.inner.numbers=1&nested.inner.numbers=2",
            json!({"nested": {"text": "a", "inner": {"text": "b", "numbers": [1, 2]}}}),
        ),
        ("time=2026-01-02T03:04:05Z&duration=1.5s", json!({"time": "2026-01-02T03:04:05Z", "duration": "1.500s"})),
        ("wrapped=a&wrappedNumber=5", json!({"wrapped": "a", "wrappedNumber": "5"})),
        ("mask=a,b.cD", json!({"mask": "a,b.cD"})),
        ("maybe=0&left=x", json!({"maybe": 0, "left": "x"})),
        ("snake_case=1", json!({"snakeCase": "1"})),
        ("snakeCase=1", json!({"snakeCase": "1"})),
    ] {
        let got = asked(&format!("GET /v1/types?{query}"), "").map(|(_, message)| message);
        if message == Json::Null {
            assert!(got.is_err(), "{query}: {got:?}");
        } else {
            assert_eq!(got, Ok(message), "{query}");
        }
    }
    let deep = format!("{}text=x", "inner.".repeat(13));
    assert!(asked(&format!("GET /v1/types?nested.{deep}"), "").is_ok());
    assert!(
        asked(&format!("GET /v1/types?nested.{}", deep.repeat(2).replace("text=x", "inner.") + "text=x"), "").is_err()
    );
}

#[test]
fn what_no_method_or_message_has_is_refused() {
    for (request, body, why) in [
        ("GET /v2/shelves", "", "no method"),
        ("POST /v1/shelves/1", "", "no method"),
        ("POST /library.v1.Library/GetShelf", "", "no method"),
        ("POST /v1/uploads", "{}", "no method"),
        ("GET /v1/shelves?no_such=1", "", "no field `no_such`"),
        ("GET /v1/shelves?page_size=1&access_token=x", "", "no field `access_token`"),
        ("GET /v1/shelves?page_size=1&page_size=1", "", "said twice"),
        ("GET /v1/shelves?page_size=1&pageSize=2", "", "said twice"),
        ("GET /v1/shelves?page_size=", "", "page_size"),
        ("GET /v1/shelves?page_size=x", "", "page_size"),
        ("GET /v1/shelves?page_size=2147483648", "", "page_size"),
        ("GET /v1/shelves?page_size=1.5", "", "page_size"),
        ("GET /v1/shelves?shelves=x", "", "not one value"),
        ("GET /v1/shelves?shelves.name=x", "", "no field `shelves.name`"),
        ("GET /v1/shelves?page_size.x=1", "", "no field"),
        ("GET /v1/shelves?page_size%00=1", "", "no field"),
        ("GET /v1/shelves?.=1", "", "no field"),
        ("GET /v1/shelves?=1", "", "no field"),
        ("GET /v1/shelves/1?name=shelves/2", "", "said twice"),
        ("GET /v1/shelves/1?name=shelves/1", "", "said twice"),
        ("GET /v1/types?bool=1", "", "neither"),
        ("GET /v1/types?bool=TRUE", "", "neither"),
        ("GET /v1/types?color=COLOR_BLUE", "", "COLOR_BLUE"),
        ("GET /v1/types?color=99", "", "99"),
        ("GET /v1/types?color=color_red", "", "color_red"),
        ("GET /v1/types?bytes=%25", "", "bytes"),
        ("GET /v1/types?counts.a=1", "", "no field"),
        ("GET /v1/types?counts=1", "", "not one value"),
        ("GET /v1/types?nested=x", "", "not one value"),
        ("GET /v1/types?object=x", "", "not one value"),
        ("GET /v1/types?any=x", "", "not one value"),
        ("GET /v1/types?time=yesterday", "", "time"),
        ("GET /v1/types?left=a&right=b", "", "exclude"),
        ("GET /v1/types?string=%FF", "", "not UTF-8"),
        ("GET /v1/types/x/y", "", "int64"),
        ("GET /v1/types/x/5?nested.text=y", "", "said twice"),
        ("GET /v1/shelves/1", "{}", "no body"),
        ("DELETE /v1/shelves/1", "x", "no body"),
        ("POST /v1/shelves?shelf.name=x", "{}", "for the body"),
        ("POST /v1/shelves?no_such=x", "{}", "no field"),
        ("POST /v1/shelves", "[]", ""),
        ("POST /v1/shelves", "{", "not JSON"),
        ("POST /v1/shelves", "{} {}", "not JSON"),
        ("POST /v1/shelves", r#"{"no_such": 1}"#, "no field `no_such`"),
        ("POST /v1/shelves/1/books/2:move?to=x", "{}", "the body says it all"),
        ("POST /v1/shelves/1/books/2:move", r#"{"name": "shelves/3/books/4"}"#, "not the same"),
        ("PATCH /v1/shelves/1/books/2", r#"{"name": "shelves/3/books/4"}"#, "not the same"),
    ] {
        let why_not = asked(request, body).unwrap_err();
        assert!(why_not.contains(why), "{request} {body}: {why_not}");
    }
}

#[test]
fn one_of_several_is_alone_at_each_part_of_a_path() {
    let of = DescriptorPool::decode(LIBRARY).unwrap().get_message_by_name("google.api.HttpRule").unwrap();
    let put = |message: &mut DynamicMessage, name: &str| {
        let path = fields::find(&of, name)?;
        let value = fields::value(path.last().unwrap(), "x")?;
        fields::put(message, &path, value)
    };
    for (first, second, is_good) in [
        ("get", "put", false),
        ("get", "custom.kind", false),
        ("custom.kind", "get", false),
        ("custom.kind", "custom.path", true),
        ("selector", "custom.path", true),
    ] {
        let mut message = DynamicMessage::new(of.clone());
        put(&mut message, first).unwrap();
        let before = message.clone();
        let after = put(&mut message, second);
        assert_eq!(after.is_ok(), is_good, "{first} {second}: {after:?}");
        assert!(is_good || (after.unwrap_err().contains("exclude") && message == before), "{first} {second}");
    }
}

#[test]
fn json_is_read_as_its_mapping_says_and_strictly() {
    for (body, message) in [
        (r#"{"int64": "5", "uint64": 18446744073709551615}"#, json!({"int64": "5", "uint64": "18446744073709551615"})),
        (r#"{"int64": 5, "int32": "5"}"#, json!({"int64": "5", "int32": 5})),
        (r#"{"int32": 1e3}"#, json!({"int32": 1000})),
        (
            r#"{"color": "COLOR_RED", "colors": [2, "COLOR_RED"]}"#,
            json!({"color": "COLOR_RED", "colors": ["COLOR_GREEN", "COLOR_RED"]}),
        ),
        (r#"{"bytes": "-_8="}"#, json!({"bytes": "+/8="})),
        (r#"{"bytes": "+/8"}"#, json!({"bytes": "+/8="})),
        (r#"{"snakeCase": "a"}"#, json!({"snakeCase": "a"})),
        (r#"{"snake_case": "a"}"#, json!({"snakeCase": "a"})),
        (r#"{"counts": {"a": 1, "b": "2"}}"#, json!({"counts": {"a": "1", "b": "2"}})),
        (
            r#"{"byName": {"a": {"text": "x"}}, "nests": [{}, {"numbers": [1]}]}"#,
            json!({"byName": {"a": {"text": "x"}}, "nests": [{}, {"numbers": [1]}]}),
        ),
        (r#"{"string": null, "nested": null}"#, json!({})),
        (r#"{"maybe": 0, "left": ""}"#, json!({"maybe": 0, "left": ""})),
        (
            r#"{"object": {"a": [1, {"b": null}]}, "duration": "3s"}"#,
            json!({"object": {"a": [1.0, {"b": null}]}, "duration": "3s"}),
        ),
        (
            r#"{"any": {"@type": "type.googleapis.com/library.v1.Shelf", "name": "x"}}"#,
            json!({"any": {"@type": "type.googleapis.com/library.v1.Shelf", "name": "x"}}),
        ),
        (
            r#"{"any": {"@type": "a/google.protobuf.Int64Value", "value": 9007199254740993}, "wrappedNumber": 5}"#,
            json!({"any": {"@type": "a/google.protobuf.Int64Value", "value": "9007199254740993"}, "wrappedNumber": "5"}),
        ),
        (
            r#"{"any": {"@type": "a/google.protobuf.Struct", "value": {"color": 99}}}"#,
            json!({"any": {"@type": "a/google.protobuf.Struct", "value": {"color": 99.0}}}),
        ),
        (r#"{"wrapped": null, "wrappedNumber": null}"#, json!({})),
        (r#"{"double": "NaN", "float": "-Infinity"}"#, json!({"double": "NaN", "float": "-Infinity"})),
        (r#"{"string": "\u00e9\n"}"#, json!({"string": "\u{e9}\n"})),
    ] {
        assert_eq!(asked("POST /v1/types", body).map(|(_, message)| message), Ok(message), "{body}");
    }
    for wrong in [
        r#"{"int64": 1, "int64": 2}"#,
        r#"{"int64": 1, "\u0069nt64": 1}"#,
        r#"{"snakeCase": "a", "snake_case": "b"}"#,
        r#"{"nested": {"text": "a", "text": "b"}}"#,
        r#"{"counts": {"a": 1, "a": 2}}"#,
        r#"{"color": "COLOR_BLUE"}"#,
        r#"{"color": 99}"#,
        r#"{"color": 1.5}"#,
        r#"{"colors": ["COLOR_RED", 99]}"#,
        r#"{"color": "color_red"}"#,
        r#"{"nested": {"no_such": 1}}"#,
        r#"{"nests": [{"no_such": 1}]}"#,
        r#"{"byName": {"a": {"no_such": 1}}}"#,
        r#"{"int32": 2147483648}"#,
        r#"{"int32": 1.5}"#,
        r#"{"uint32": -1}"#,
        r#"{"int64": 9223372036854775808}"#,
        r#"{"int64": 9007199254740993.5}"#,
        r#"{"int64": 1e19}"#,
        r#"{"uint64": 18446744073709551616}"#,
        r#"{"int64": ""}"#,
        r#"{"bytes": "%%"}"#,
        r#"{"string": 1}"#,
        r#"{"bool": "true"}"#,
        r#"{"bool": 1}"#,
        r#"{"texts": "a"}"#,
        r#"{"texts": [null]}"#,
        r#"{"nested": []}"#,
        r#"{"nested": "x"}"#,
        r#"{"left": "a", "right": "b"}"#,
        r#"{"time": "2026-01-02"}"#,
        r#"{"any": {"@type": "type.googleapis.com/no.Such"}}"#,
        r#"{"any": {"name": "x"}}"#,
        r#"{"wrappedNumber": 9007199254740993.0}"#,
        r#"{"wrappedNumber": 1.5}"#,
        r#"{"wrappedNumber": {"value": 1}}"#,
        r#"{"any": {"@type": "a/google.protobuf.Int64Value", "value": 9007199254740993.0}}"#,
        r#"{"any": {"@type": "a/google.protobuf.Any", "value": {"@type": "a/google.protobuf.Int64Value", "value": 1e18}}}"#,
        r#"{"any": {"@type": "a/library.v1.Types", "snakeCase": "a", "snake_case": "b"}}"#,
        r#"{"any": {"@type": "a/library.v1.Types", "color": 99}}"#,
        r#"{"any": {"@type": "a/library.v1.Types", "nested": {"no_such": 1}}}"#,
        r#"{"any": {"@type": "a/library.v1.Types", "any": {"@type": "a/library.v1.Types", "color": 99}}}"#,
        r#"{"any": {"color": 99, "@type": "a/library.v1.Types"}}"#,
        r#"{"object": []}"#,
        r#"{"time": {"seconds": 1}}"#,
        "null",
        "[]",
        "1",
        r#""{}""#,
        "{}x",
        "\u{feff}{}",
    ] {
        assert!(asked("POST /v1/types", wrong).is_err(), "{wrong}");
    }
    let nested = |depth: usize| {
        format!("{}{}{}", r#"{"nested":"#, r#"{"inner":"#.repeat(depth), "{}".to_owned() + &"}".repeat(depth + 1))
    };
    assert!(asked("POST /v1/types", &nested(60)).is_ok());
    assert!(asked("POST /v1/types", &nested(100)).unwrap_err().contains("deeper"));
    assert!(asked("POST /v1/types", &nested(100_000)).unwrap_err().contains("deeper"));
    let long = asked("POST /v1/types", &format!(r#"{{"{}": 1}}"#, "x".repeat(10_000))).unwrap_err();
    assert!(long.len() < 400, "what a client said is not said again whole: {}", long.len());
}

/// What an answer of a method is in JSON.
fn answered(transcode: &Transcode, request: &str, of: &str, message: Json) -> Json {
    let (method, path) = request.split_once(' ').unwrap();
    let (binding, _) = transcode.find(&method.parse().unwrap(), path).unwrap();
    let pool = DescriptorPool::decode(LIBRARY).unwrap();
    let of = pool.get_message_by_name(&format!("library.v1.{of}")).unwrap();
    let message = DynamicMessage::deserialize(of, message).unwrap();
    serde_json::from_slice(&binding.answers.json(&message.encode_to_vec(), &mut |_| true).unwrap()).unwrap()
}

#[test]
fn an_answer_is_json_as_its_route_wants_it() {
    let shelf = json!({"name": "shelves/1", "size": "5"});
    let list = json!({"shelves": [shelf], "nextPageToken": "x"});
    assert_eq!(answered(&library(), "GET /v1/shelves/1", "Shelf", shelf.clone()), shelf);
    assert_eq!(answered(&library(), "GET /v1/shelves", "ListShelvesResponse", list), json!([shelf]));
    assert_eq!(
        answered(&library(), "GET /v1/shelves", "ListShelvesResponse", json!({})),
        json!([]),
        "the field, and nothing else"
    );
    let said = json!({"int64": "-1", "color": "COLOR_RED", "bytes": "+/8=", "snakeCase": "a"});
    assert_eq!(answered(&library(), "POST /v1/types", "Types", said.clone()), said);
    let with = |change: fn(&mut Terms)| {
        let mut terms = terms();
        change(&mut terms);
        Transcode::new(LIBRARY, terms).unwrap()
    };
    let proto = with(|terms| terms.proto_names = true);
    assert_eq!(answered(&proto, "POST /v1/types", "Types", json!({"snakeCase": "a"})), json!({"snake_case": "a"}));
    let whole = with(|terms| terms.defaults = true);
    assert_eq!(
        answered(&whole, "GET /v1/shelves/1", "Shelf", json!({})),
        json!({"name": "", "theme": "", "size": "0"})
    );
    // A number that no name is for is written as a number.
    let (binding, _) = proto.find(&Method::POST, "/v1/types").unwrap();
    assert_eq!(&binding.answers.json(&[0x50, 99], &mut |_| true).unwrap()[..], br#"{"color":99}"#);
    for garbage in [&[0xff][..], &[0x0a, 5, b'x'], &[0x42, 1, 0xff]] {
        assert!(matches!(binding.answers.json(garbage, &mut |_| true), Err(Unmade::Wrong(_))), "{garbage:?}");
    }
}

#[test]
fn an_answer_has_an_end_and_asks_for_its_room_before_it_takes_it() {
    let map = vec![mapped("GET /v1/whole", "library.v1.Library/ListShelves")];
    let transcode = Transcode::new(LIBRARY, Terms { defaults: true, message_max: 1000, map, ..terms() }).unwrap();
    let shelves = |count: usize| [0x0a, 0].repeat(count); // each is `{"name":"","theme":"","size":"0"}`
    for path in ["/v1/shelves", "/v1/whole"] {
        let (binding, _) = transcode.find(&Method::GET, path).unwrap();
        let mut asked = Vec::new();
        let made = binding.answers.json(&shelves(400), &mut |bytes| {
            asked.push(bytes);
            true
        });
        let made = made.unwrap();
        let is_json = serde_json::from_slice::<Json>(&made).is_ok();
        assert!(is_json && made.len() > 13_000 && made.len() <= *asked.last().unwrap(), "{path}: {asked:?}");
        assert!(asked.is_sorted() && asked.len() < 30, "{path}: {asked:?}");
        let mut most = 0;
        let crowded = binding.answers.json(&shelves(400), &mut |bytes| {
            most = bytes;
            bytes <= 3000
        });
        assert_eq!(crowded, Err(Unmade::Crowded), "{path}");
        assert!(
            most <= 6000,
            "{path}: it stops where it is refused, and does not ask for all of it at the end: {most}"
        );
        let long = binding.answers.json(&shelves(500), &mut |_| true);
        assert!(matches!(&long, Err(Unmade::Wrong(why)) if why.contains("longer than 16000")), "{path}: {long:?}");
    }
}

#[test]
fn messages_within_messages_have_an_end() {
    let pool = DescriptorPool::decode(LIBRARY).unwrap();
    let any = |held: Vec<u8>| {
        let url = b"type.googleapis.com/library.v1.Types";
        let length = |length: usize| {
            let mut bytes = Vec::new();
            let mut rest = length;
            loop {
                let more = rest >> 7;
                bytes.push((rest & 127) as u8 | if more > 0 { 128 } else { 0 });
                rest = more;
                if rest == 0 {
                    return bytes;
                }
            }
        };
        let any = [&[0x0a][..], &length(url.len()), url, &[0x12], &length(held.len()), &held].concat();
        [&[0xa2, 0x01][..], &length(any.len()), &any].concat() // Types.any
    };
    let transcode = library();
    let (binding, _) = transcode.find(&Method::POST, "/v1/types").unwrap();
    let nested = |depth: usize| (0..depth).fold(Vec::new(), |held, _| any(held));
    assert!(binding.answers.json(&nested(20), &mut |_| true).is_ok());
    let deep = binding.answers.json(&nested(5_000), &mut |_| true);
    assert!(matches!(&deep, Err(Unmade::Wrong(why)) if why.contains("deeper")), "{deep:?}");
    assert!(pool.get_message_by_name("library.v1.Types").is_some());
}

#[test]
fn a_failure_is_told_as_google_rpc_status() {
    let transcode = library();
    let (binding, _) = transcode.find(&Method::GET, "/v1/shelves/1").unwrap();
    let told = |lines: &[(&'static str, &str)]| -> Json {
        let fields: HeaderMap =
            lines.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        serde_json::from_slice(&binding.answers.status(&Status::of(&fields).unwrap())).unwrap()
    };
    assert_eq!(
        told(&[("grpc-status", "5"), ("grpc-message", "no \"shelf\" %C3%A9")]),
        json!({"code": 5, "message": "no \"shelf\" \u{e9}", "details": []})
    );
    let pool = DescriptorPool::decode(LIBRARY).unwrap();
    let of = pool.get_message_by_name("google.rpc.Status").unwrap();
    let details =
        json!({"code": 5, "message": "x", "details": [{"@type": "type.googleapis.com/library.v1.Shelf", "name": "a"}]});
    let status = DynamicMessage::deserialize(of, details.clone()).unwrap().encode_to_vec();
    for padding in ["", "=="] {
        use base64::Engine;
        let text = base64::prelude::BASE64_STANDARD_NO_PAD.encode(&status);
        let padding = if text.len().is_multiple_of(4) { "" } else { padding };
        let padded = format!("{text}{}", &padding[..padding.len().min((4 - text.len() % 4) % 4)]);
        let got = told(&[("grpc-status", "5"), ("grpc-message", "x"), ("grpc-status-details-bin", &padded)]);
        assert_eq!(got, details);
    }
    let broken = told(&[("grpc-status", "5"), ("grpc-status-details-bin", "!")]);
    assert_eq!(broken["details"], json!([]));
}

#[test]
fn a_map_makes_routes_without_annotations() {
    let map = vec![
        mapped("GET /shelves/{name}", "library.v1.Library/GetShelf"),
        mapped("POST /shelves", "library.v1.Library/MoveBook"),
        mapped("DELETE /shelves", "library.v1.Library/Reset"),
        Mapped {
            body: Some("shelf".to_owned()),
            response_body: Some("shelf".to_owned()),
            status: StatusCode::CREATED,
            ..mapped("PUT /shelves/{shelf_id}", "library.v1.Library/CreateShelf")
        },
    ];
    let transcode = Transcode::new(LIBRARY, Terms { map, ..Terms::default() }).unwrap();
    for (request, body, method, message) in [
        ("GET /shelves/1", "", "GetShelf", json!({"name": "1"})),
        ("POST /shelves", r#"{"to": "x"}"#, "MoveBook", json!({"to": "x"})),
        ("DELETE /shelves", "", "Reset", json!({})),
        ("PUT /shelves/9", r#"{"name": "x"}"#, "CreateShelf", json!({"shelf": {"name": "x"}, "shelfId": "9"})),
    ] {
        assert_eq!(asked_of(&transcode, request, body), Ok((method.to_owned(), message)), "{request}");
    }
    assert!(asked_of(&transcode, "GET /v1/shelves/1", "").is_err(), "what nobody asked for is not there");
    let (binding, _) = transcode.find(&Method::PUT, "/shelves/9").unwrap();
    assert_eq!((binding.status, &*binding.path), (StatusCode::CREATED, "/library.v1.Library/CreateShelf"));
}

#[test]
fn a_descriptor_set_that_does_not_do_is_refused_with_the_reason() {
    let services =
        |names: &[&str]| Terms { services: names.iter().map(|name| (*name).to_owned()).collect(), ..Terms::default() };
    let map = |request, call| Terms { map: vec![mapped(request, call)], ..Terms::default() };
    let field = |body: Option<&str>, response: Option<&str>| Terms {
        map: vec![Mapped {
            body: body.map(str::to_owned),
            response_body: response.map(str::to_owned),
            ..mapped("POST /a", "library.v1.Library/GetShelf")
        }],
        ..Terms::default()
    };
    for (descriptor, terms, why) in [
        (&b"service Library {}"[..], services(&[]), "no descriptor set"),
        (&LIBRARY[..LIBRARY.len() / 2], services(&[]), "no descriptor set"),
        (&[], services(&["library.v1.Library"]), "it has none"),
        (
            LIBRARY,
            services(&["library.v1.Librarian"]),
            "no service `library.v1.Librarian`; it has `library.v1.Library`",
        ),
        (
            LIBRARY,
            services(&["library.v1.Wrong"]),
            "`library.v1.Wrong.Field`: `library.v1.GetShelfRequest` has no field `no_such`",
        ),
        (LIBRARY, services(&["library.v1.Clashing"]), "is a path of `library.v1.Clashing.One` already"),
        (LIBRARY, services(&["library.v1.Library", "library.v1.Library"]), "already"),
        (LIBRARY, map("GET /a", "library.v1.Library/Upload"), "takes a stream"),
        (LIBRARY, map("GET /a", "library.v1.Library/NoSuch"), "no method `NoSuch`"),
        (LIBRARY, map("GET /a", "no.Such/NoSuch"), "no service `no.Such`"),
        (LIBRARY, map("GET /a", "NoSuch"), "is no method"),
        (LIBRARY, map("GET a", "library.v1.Library/GetShelf"), "no path of an API"),
        (LIBRARY, map("GET /{no_such}", "library.v1.Library/GetShelf"), "no field `no_such`"),
        (LIBRARY, map("GET /{texts}", "library.v1.Library/Echo"), "not one word"),
        (LIBRARY, map("GET /{time}", "library.v1.Library/Echo"), "not one word"),
        (LIBRARY, map("GET /{nested}", "library.v1.Library/Echo"), "not one value"),
        (LIBRARY, field(Some("no_such"), None), "no field `no_such`"),
        (LIBRARY, field(None, Some("no_such")), "no field `no_such`"),
    ] {
        let why_not = Transcode::new(descriptor, terms).unwrap_err();
        assert!(why_not.contains(why), "{why}: {why_not}");
    }
}

#[test]
fn two_are_the_same_where_set_and_terms_are() {
    let (one, other) = (library(), library());
    assert_eq!(one, other);
    assert_ne!(one, Transcode::new(LIBRARY, Terms { defaults: true, ..terms() }).unwrap());
    // A field that no file of a set has is skipped by whoever reads it.
    let longer = [LIBRARY, &[0x78, 0][..]].concat();
    assert_ne!(one, Transcode::new(&longer, terms()).unwrap(), "another set");
}

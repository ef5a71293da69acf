//! A saga among services that answer, refuse and say nothing, and processes that end between any two of its moves.

use proptest::prelude::*;

use super::*;

fn plan(text: &str) -> Plan {
    Plan::read(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why}"))
}

fn step(name: &str, more: &str) -> String {
    format!(r#"{{"name":"{name}","service":"s","action":"{name}/do"{more}}}"#)
}

fn saga(steps: &[&str]) -> Saga {
    let steps: Vec<String> = steps
        .iter()
        .map(|name| step(name, &format!(r#","compensation":"{name}/undo","payload":{{"n" : 1}}"#)))
        .collect();
    Saga::new("o-1".to_owned(), plan(&format!(r#"{{"steps":[{}]}}"#, steps.join(","))), 1)
}

/// Does the next action, and says which.
fn act(saga: &mut Saga, heard: Heard) -> String {
    let action = saga.next().unwrap();
    saga.begin(2);
    let call = saga.call(action).unwrap();
    saga.heard(action, heard, 3);
    call.key
}

fn refused() -> Heard {
    Heard::Refused("it answered 409".to_owned())
}

fn unknown() -> Heard {
    Heard::Unknown("no answer".to_owned())
}

#[test]
fn steps_are_done_in_their_order() {
    let mut saga = saga(&["a", "b"]);
    assert!(!saga.is_begun() && saga.current() == 0);
    let call = saga.call(saga.next().unwrap()).unwrap();
    assert_eq!((call.service.as_str(), call.path.as_str(), call.body.as_str()), ("s", "/api/a/do", r#"{"n" : 1}"#));
    assert_eq!((act(&mut saga, Heard::Done), saga.status()), ("o-1:a:do".to_owned(), Status::Running));
    assert_eq!((act(&mut saga, Heard::Done), saga.status()), ("o-1:b:do".to_owned(), Status::Completed));
    assert_eq!((saga.next(), saga.current(), saga.reason()), (None, 2, None));
    assert!(saga.is_begun() && !saga.kept().contains("payload"), "nothing is sent any more");
}

#[test]
fn those_before_one_that_is_refused_are_undone_in_reverse() {
    let mut saga = saga(&["a", "b", "c"]);
    let outcomes = [Heard::Done, Heard::Done, refused(), Heard::Done, Heard::Done];
    let keys: Vec<String> = outcomes.into_iter().map(|heard| act(&mut saga, heard)).collect();
    assert_eq!(keys, ["o-1:a:do", "o-1:b:do", "o-1:c:do", "o-1:b:undo", "o-1:a:undo"]);
    assert_eq!((saga.status(), saga.reason()), (Status::Failed, Some("step `c`: it answered 409")));
    assert_eq!((saga.completed(), saga.failed(), saga.compensated()), (vec!["a", "b"], vec!["c"], vec!["b", "a"]));
}

#[test]
fn one_that_may_have_had_its_effect_is_undone_too() {
    let mut saga = saga(&["a", "b"]);
    let keys: Vec<String> =
        [Heard::Done, unknown(), Heard::Done, Heard::Done].into_iter().map(|heard| act(&mut saga, heard)).collect();
    assert_eq!(keys, ["o-1:a:do", "o-1:b:do", "o-1:b:undo", "o-1:a:undo"]);
    assert!(saga.reason().unwrap().contains("may have had its effect"));
    assert_eq!((saga.status(), saga.compensated()), (Status::Failed, vec!["b", "a"]));
}

#[test]
fn what_has_no_compensation_is_passed_over() {
    let steps = [step("a", ""), step("b", r#","compensation":"x""#), step("c", r#","compensation":"""#), step("d", "")];
    let mut saga = Saga::new("o".to_owned(), plan(&format!(r#"{{"steps":[{}]}}"#, steps.join(","))), 1);
    let outcomes = [Heard::Done, Heard::Done, Heard::Done, unknown()];
    for heard in outcomes {
        act(&mut saga, heard);
    }
    assert_eq!((saga.status(), saga.remaining()), (Status::Compensating, vec!["b"]));
    assert!(saga.reason().unwrap().ends_with("it has no compensation"));
    assert_eq!(act(&mut saga, Heard::Done), "o:b:undo");
    assert_eq!((saga.status(), saga.compensated()), (Status::Failed, vec!["b"]));
}

#[test]
fn a_compensation_that_fails_is_for_people_and_is_tried_again_when_they_say_so() {
    let mut saga = saga(&["a", "b", "c"]);
    assert!(!saga.again(4), "nothing has failed");
    for heard in [Heard::Done, Heard::Done, refused(), refused()] {
        act(&mut saga, heard);
    }
    assert_eq!((saga.status(), saga.next(), saga.remaining()), (Status::Manual, None, vec!["b", "a"]));
    assert_eq!(saga.reason(), Some("step `c`: it answered 409; compensation of `b`: it answered 409"));
    let mut saga = Saga::read(saga.kept().as_bytes()).unwrap();
    assert!(saga.again(4) && saga.is_repeat() && !saga.again(5));
    assert_eq!([act(&mut saga, Heard::Done), act(&mut saga, Heard::Done)], ["o-1:b:undo", "o-1:a:undo"]);
    assert_eq!((saga.status(), saga.remaining()), (Status::Failed, vec![]));
}

#[test]
fn what_is_heard_of_another_action_changes_nothing() {
    let mut saga = saga(&["a", "b"]);
    let kept = saga.kept();
    let of = |step, is_undo| Action { step, is_undo };
    saga.heard(of(0, false), Heard::Done, 9);
    assert_eq!(saga.kept(), kept, "it was not begun");
    saga.begin(2);
    let kept = saga.kept();
    for action in [of(1, false), of(0, true), of(7, false)] {
        saga.heard(action, Heard::Done, 9);
    }
    assert_eq!((saga.kept(), saga.call(of(7, false))), (kept, None));
}

#[test]
fn an_answer_is_judged_by_its_status() {
    for (status, is_repeat, verdict) in [
        (200, false, Verdict::Done),
        (204, true, Verdict::Done),
        (301, false, Verdict::Again),
        (400, false, Verdict::Refused),
        (404, true, Verdict::Refused),
        (408, false, Verdict::Again),
        (409, false, Verdict::Refused),
        (409, true, Verdict::Again),
        (421, false, Verdict::Again),
        (425, false, Verdict::Again),
        (429, false, Verdict::Again),
        (500, false, Verdict::Again),
        (503, true, Verdict::Again),
    ] {
        assert_eq!(judge(status, is_repeat), verdict, "{status} {is_repeat}");
    }
}

#[test]
fn times_do_not_go_back_and_reasons_do_not_grow() {
    let mut saga = saga(&["a"]);
    saga.begin(10);
    saga.heard(Action { step: 0, is_undo: false }, Heard::Unknown("ä".repeat(500)), 5);
    assert_eq!(saga.times_ms(), [1, 10]);
    for _ in 0..3 {
        act(&mut saga, refused());
        saga.again(11);
    }
    assert!(saga.reason().unwrap().len() <= REASON_MAX);
}

#[test]
fn what_is_kept_is_read_again() {
    let mut saga = saga(&["a", "b"]);
    act(&mut saga, Heard::Done);
    let read = Saga::read(saga.kept().as_bytes()).unwrap();
    assert_eq!((read.kept(), read.call(read.next().unwrap())), (saga.kept(), saga.call(saga.next().unwrap())));
    let line = headline(saga.kept().as_bytes()).unwrap();
    assert_eq!((line.id.as_str(), line.status, line.changed_ms), ("o-1", Status::Running, 3));
    for bad in ["", "{}", "[]", "{\"id\":\"a\"}", "null"] {
        assert!(Saga::read(bad.as_bytes()).is_err() && headline(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn payloads_are_kept_byte_for_byte() {
    for payload in [r#"{"a" : [1.0, 1e3],  "b":"\u00e4ä\"" }"#, "null", "3", "\"\"", "[ ]"] {
        let plan = plan(&format!(r#"{{"steps":[{}]}}"#, step("a", &format!(r#","payload":{payload}"#))));
        let saga = Saga::read(Saga::new("o".to_owned(), plan, 1).kept().as_bytes()).unwrap();
        assert_eq!(saga.call(saga.next().unwrap()).unwrap().body, payload);
    }
    let none = Saga::new("o".to_owned(), plan(&format!(r#"{{"steps":[{}]}}"#, step("a", ""))), 1);
    assert_eq!(none.call(none.next().unwrap()).unwrap().body, "null");
}

#[test]
fn what_a_structure_of_go_has_is_read() {
    let go = r#"{"ID":"order-17","Steps":[{"Name":"deduct","Service":"s","Action":"inventory/deduct","Compensation":"","Payload":null}],
        "Current":0,"Status":"","Completed":null,"Failed":[]}"#;
    let plan = plan(go);
    assert_eq!(plan.id.as_deref(), Some("order-17"));
    let saga = Saga::new("order-17".to_owned(), plan, 1);
    assert_eq!(saga.call(saga.next().unwrap()).unwrap().within, Duration::from_secs(30));
    assert!(saga.steps().all(|step| step.compensation.is_none()));
    assert_eq!(self::plan(&go.replace("order-17", "")).id, None);
}

#[test]
fn what_is_wrong_is_told() {
    let with = |more: &str| format!(r#"{{"steps":[{}]}}"#, step("a", more));
    let of = |body: String| Plan::read(body.as_bytes()).err().unwrap_or_else(|| panic!("{body} is good"));
    let long = "a".repeat(65);
    for (body, message) in [
        (String::new(), "EOF"),
        ("[]".to_owned(), "a JSON object"),
        ("{}".to_owned(), "missing field `steps`"),
        (r#"{"steps":[]}"#.to_owned(), "1 to 32 steps, not 0"),
        (r#"{"steps":{}}"#.to_owned(), "invalid type: map"),
        (r#"{"steps":[{"name":"a"}]}"#.to_owned(), "missing field `service`"),
        (r#"{"steps":[],"stepz":1}"#.to_owned(), "unknown field `stepz`"),
        (r#"{"steps":[],"Steps":[]}"#.to_owned(), "duplicate field `steps`"),
        (with(r#","retries":3"#), "unknown field `retries`"),
        (with(r#","timeout":"soon""#), "`timeout` is a duration of 100ms to 5m"),
        (with(r#","timeout":"99ms""#), "not `99ms`"),
        (with(r#","timeout":"6m""#), "not `6m`"),
        (with(r#","timeout":30"#), "invalid type: integer"),
        (with(r#","compensation":"../x""#), "step 1: `compensation` is a path below /api/"),
        (with(r#","compensation":"a?b""#), "without `?`"),
        (r#"{"steps":[{"name":"a","service":"s","action":""}]}"#.to_owned(), "without empty segments"),
        (r#"{"steps":[{"name":"a","service":"s","action":"/a"}]}"#.to_owned(), "without empty segments"),
        (r#"{"steps":[{"name":"a","service":"s","action":"a%2fb"}]}"#.to_owned(), "`%`"),
        (r#"{"steps":[{"name":"a","service":"s","action":"ä"}]}"#.to_owned(), "path below /api/"),
        (r#"{"steps":[{"name":"a","service":"","action":"a"}]}"#.to_owned(), "`service` is empty"),
        (format!(r#"{{"steps":[{}]}}"#, step("a b", "")), "`name` has 1 to 64 characters"),
        (format!(r#"{{"steps":[{}]}}"#, step("..", "")), "not only dots"),
        (format!(r#"{{"steps":[{}]}}"#, step(&long, "")), "1 to 64"),
        (format!(r#"{{"steps":[{},{}]}}"#, step("a", ""), step("a", "")), "two steps are named `a`"),
        (format!(r#"{{"id":"a/b","steps":[{}]}}"#, step("a", "")), "an id has 1 to 64"),
        (format!(r#"{{"Current":1,"steps":[{}]}}"#, step("a", "")), "`Current` says"),
        (format!(r#"{{"Status":"completed","steps":[{}]}}"#, step("a", "")), "`Status` says"),
    ] {
        let said = of(body.clone());
        assert!(said.contains(message), "{body}: {said}");
    }
    let steps: Vec<String> = (0..33).map(|number| step(&format!("s{number}"), "")).collect();
    assert!(of(format!(r#"{{"steps":[{}]}}"#, steps.join(","))).contains("not 33"));
    assert_eq!(plan(&format!(r#"{{"steps":[{}]}}"#, steps[..32].join(","))).services().count(), 32);
}

#[test]
fn the_same_steps_are_the_same_whatever_their_id_and_no_others_are() {
    let of = |more: &str| plan(&format!(r#"{{"steps":[{}]}}"#, step("a", more)));
    let saga = Saga::new("o".to_owned(), of(r#","payload":1"#), 1);
    assert!(saga.is_of(&of(r#","payload":1"#)) && saga.is_of(&of(r#","timeout":"30s","payload":1"#)));
    for other in ["", r#","payload":2"#, r#","payload":1,"timeout":"31s""#, r#","payload":1,"compensation":"x""#] {
        assert!(!saga.is_of(&of(other)), "{other}");
    }
    let steps = |names: &[&str]| {
        let steps: Vec<String> = names.iter().map(|name| step(name, "")).collect();
        plan(&format!(r#"{{"steps":[{}]}}"#, steps.join(",")))
    };
    assert!(!Saga::new("o".to_owned(), steps(&["a", "b"]), 1).is_of(&steps(&["b", "a"])));
}

/// What happens at one action.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    Refused,
    /// The effect is there, and nobody says so.
    DoneUnheard,
    /// Neither effect nor answer.
    Lost,
    /// The process ends before the call, or after it and before it has heard.
    EndsBefore,
    EndsAfter,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::Refused),
        1 => Just(Fate::DoneUnheard),
        1 => Just(Fate::Lost),
        2 => Just(Fate::EndsBefore),
        2 => Just(Fate::EndsAfter),
    ];
    proptest::collection::vec(fate, 0..40)
}

/// Services that do each key once and know which they have done.
#[derive(Debug, Default)]
struct World {
    effects: Vec<String>,
}

impl World {
    fn call(&mut self, key: &str) {
        if !self.effects.iter().any(|known| known == key) {
            self.effects.push(key.to_owned());
        }
    }

    fn has(&self, name: &str, word: &str) -> bool {
        self.effects.contains(&format!("o-1:{name}:{word}"))
    }
}

proptest! {
    #[test]
    fn whatever_happens_all_is_done_or_all_is_undone_or_people_are_asked(fates in fates(), count in 1_usize..6) {
        let names: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
        let mut saga = saga(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let (mut world, mut fates) = (World::default(), fates.into_iter().chain(std::iter::repeat(Fate::Done)));
        let mut order: Vec<Action> = Vec::new();
        while let Some(action) = saga.next() {
            let (is_repeat, ended) = (saga.is_repeat(), saga.status().is_ended());
            prop_assert!(!ended);
            prop_assert_eq!(is_repeat, order.last() == Some(&action), "what is begun is what comes next");
            saga.begin(1);
            saga = Saga::read(saga.kept().as_bytes()).unwrap(); // as it is kept
            prop_assert_eq!(saga.next(), Some(action), "one action at a time");
            if !is_repeat {
                order.push(action);
            }
            let key = saga.call(action).unwrap().key;
            let heard = match fates.next().unwrap() {
                Fate::Done => { world.call(&key); Some(Heard::Done) }
                // A service that has done it does not refuse it.
                Fate::Refused if !world.effects.contains(&key) => Some(refused()),
                Fate::Refused => Some(Heard::Done),
                Fate::DoneUnheard => { world.call(&key); Some(unknown()) }
                Fate::Lost => Some(unknown()),
                Fate::EndsBefore => None,
                Fate::EndsAfter => { world.call(&key); None }
            };
            if let Some(heard) = heard {
                saga.heard(action, heard, 2);
            }
        }
        let ups: Vec<usize> = order.iter().filter(|action| !action.is_undo).map(|action| action.step).collect();
        let downs: Vec<usize> = order.iter().filter(|action| action.is_undo).map(|action| action.step).collect();
        prop_assert_eq!(&ups, &(0..ups.len()).collect::<Vec<_>>(), "each step after the one before");
        prop_assert!(downs.windows(2).all(|pair| pair[0] == pair[1] + 1), "in reverse, none left out: {:?}", downs);
        prop_assert!(order.iter().skip_while(|action| !action.is_undo).all(|action| action.is_undo), "none after an undo");
        match saga.status() {
            Status::Completed => prop_assert!(downs.is_empty() && names.iter().all(|name| world.has(name, "do"))),
            Status::Failed => {
                let half_done = names.iter().find(|name| world.has(name, "do") && !world.has(name, "undo"));
                prop_assert!(half_done.is_none(), "{half_done:?} is left");
            }
            Status::Manual => prop_assert!(!saga.remaining().is_empty() && saga.reason().is_some()),
            Status::Running | Status::Compensating => prop_assert!(false, "it has ended"),
        }
    }

    #[test]
    fn nothing_that_is_asked_for_panics(body in ".{0,200}") {
        let _ = Plan::read(body.as_bytes());
        let _ = Saga::read(body.as_bytes());
    }
}

//! Runs one operation of the request path a number of times, for a counter of instructions: `instructions NAME COUNT`, or
//! `instructions list`. Nothing is random and no clock is read, so that a count repeats. See `scripts/instructions.sh`.

use std::hint::black_box;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use lictor_core::balance::{Balancer, Load, Slot, hash_bytes};
use lictor_core::breaker::{Breaker, Verdict};
use lictor_core::budget::RetryBudget;
use lictor_core::gateway::When;
use lictor_core::gateway::table::{self, Conditions, Matcher, Table};
use lictor_core::gateway::{HostPattern, PathPattern, host, path};
use lictor_core::outcome::{Failure, Reason};
use lictor_core::policy::{Algorithm, Balance, BreakerPolicy, BudgetPolicy, RetryPolicy};
use lictor_core::retry::{Asked, Tried, next};
use lictor_core::route::{Route, Routes};
use lictor_core::trace::{TraceContext, TraceSettings, request_id};

type Operation = Box<dyn Fn(u32)>;

/// The number of the operation in time: one every 100 microseconds.
fn at(start: Instant, number: u32) -> Instant {
    start + Duration::from_micros(100) * number
}

fn main() -> ExitCode {
    let start = Instant::now();
    let operations = operations(start);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [list] if list == "list" => {
            for (name, _) in &operations {
                #[expect(clippy::print_stdout, reason = "a list for a script")]
                {
                    println!("{name}");
                }
            }
            ExitCode::SUCCESS
        }
        [name, count] => {
            let operation = operations.into_iter().find(|(known, _)| known == name);
            let (Some((_, make)), Ok(count)) = (operation, count.parse()) else { return ExitCode::FAILURE };
            let operation = make();
            for number in 0..count {
                operation(number);
            }
            ExitCode::SUCCESS
        }
        _ => ExitCode::SUCCESS, // `cargo bench` of everything
    }
}

fn operations(start: Instant) -> Vec<(String, Box<dyn Fn() -> Operation>)> {
    let mut operations: Vec<(String, Box<dyn Fn() -> Operation>)> = Vec::new();
    for algorithm in Algorithm::ALL {
        for endpoints in [3, 1000] {
            let name = format!("pick_{algorithm}_{endpoints}");
            let algorithm = algorithm.clone();
            operations.push((name, Box::new(move || pick(algorithm.clone(), endpoints, start))));
        }
    }
    operations.push(("route_match_10".to_owned(), Box::new(route_match)));
    operations.push(("gateway_match_10000".to_owned(), Box::new(gateway_match)));
    operations.push(("breaker_success".to_owned(), Box::new(move || breaker(start))));
    operations.push(("budget".to_owned(), Box::new(move || budget(start))));
    operations.push(("retry_next".to_owned(), Box::new(move || retry(start))));
    operations.push(("trace_start_fields".to_owned(), Box::new(trace)));
    operations.push(("request_id".to_owned(), Box::new(id)));
    operations
}

/// Endpoints that have all answered, some with requests in flight.
fn pick(algorithm: Algorithm, endpoints: u32, start: Instant) -> Operation {
    let slot = |number: u32| {
        let load = Rc::new(Load::default());
        load.finished(start, Some(Duration::from_micros(500 + u64::from(number % 7) * 100)));
        (0..number % 3).for_each(|_| load.started());
        Slot { weight: 1, warms_from: None, hash: hash_bytes(&number.to_be_bytes()), load }
    };
    let balance = Balance { algorithm, ..Balance::default() };
    let balancer = Balancer::new(&balance, (0..endpoints).map(slot).collect(), 42);
    Box::new(move |number| {
        let hash = Some(hash_bytes(&number.to_be_bytes()));
        black_box(balancer.pick(at(start, number), black_box(hash), |slot| black_box(slot) < usize::MAX));
    })
}

/// The last of ten routes.
fn route_match() -> Operation {
    let route = |number| Route::parse(&format!("GET /api/v1/thing{number}/{{id}}"), Arc::default(), None);
    let routes = Routes::new((0..10).map(route).collect::<Result<_, _>>().expect("they are patterns"));
    Box::new(move |_| {
        black_box(routes.position(black_box(&Method::GET), black_box("/api/v1/thing9/1234")));
    })
}

/// One of ten thousand routes of a gateway, its path and host read first.
fn gateway_match() -> Operation {
    let matcher = |number: usize| Matcher {
        host: HostPattern::parse("shop.example").expect("it is one"),
        path: PathPattern::parse(&format!("/api/v{}/thing{number}/{{id}}", number % 7), false).expect("it is one"),
        conditions: Conditions::default(),
        when: When::default(),
    };
    let table = Table::new((0..10_000).map(matcher).collect()).expect("none is there twice");
    let headers = HeaderMap::new();
    Box::new(move |_| {
        let host = host::read(black_box("Shop.example:8080")).expect("it is one");
        let read = path::read(black_box("/api/v3/thing9999/1234")).expect("it is one");
        let asked =
            table::Asked { host: &host, path: read.folded(), query: None, method: &Method::GET, headers: &headers };
        assert_eq!(black_box(table.find(&asked)), Some(9_999));
    })
}

/// Closed: leave to send, and a success.
fn breaker(start: Instant) -> Operation {
    let (breaker, policy) = (Breaker::new(start), BreakerPolicy::default());
    Box::new(move |number| {
        let now = at(start, number);
        if let Ok(admission) = breaker.admit(black_box(&policy), now) {
            black_box(breaker.finish(&policy, admission, black_box(Verdict::Success), now));
        }
    })
}

/// A request, and a retry of it that is granted.
fn budget(start: Instant) -> Operation {
    let budget = RetryBudget::new(plenty(), 1, start);
    Box::new(move |number| {
        let now = at(start, number);
        budget.deposit(now);
        black_box(budget.withdraw(now));
    })
}

/// A retry that is granted, after a wait.
fn retry(start: Instant) -> Operation {
    let (budget, policy) = (RetryBudget::new(plenty(), 1, start), RetryPolicy::default());
    let failure = Failure::new(Reason::Status, "answered 503");
    Box::new(move |number| {
        let tried = Tried {
            failure: &failure,
            attempts: 1,
            is_idempotent: true,
            is_replayable: true,
            asked: Asked::Nothing,
            remaining: Some(Duration::from_secs(30)),
            has_other: true,
        };
        black_box(next(&policy, black_box(&tried), &budget, at(start, number), 0.5));
    })
}

/// Every retry is granted.
fn plenty() -> BudgetPolicy {
    BudgetPolicy { min_per_second: 1e6, ..RetryPolicy::default().budget }
}

fn trace() -> Operation {
    let settings = TraceSettings::default();
    Box::new(move |number| {
        let mut random = counter(number);
        let context = TraceContext::start(black_box(&settings), &mut random);
        context.fields(&settings, |name, value| {
            black_box((name, value));
        });
    })
}

fn id() -> Operation {
    Box::new(|number| {
        black_box(request_id(counter(number), black_box(0x0192_f3c1_5d2e)));
    })
}

fn counter(number: u32) -> impl FnMut() -> u64 {
    let mut word = u64::from(number);
    move || {
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        black_box(word)
    }
}

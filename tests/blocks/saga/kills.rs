//! What a saga promises, shown: whoever is killed at whichever step, no order is left half done, and no step has its effect twice.
//! `cargo test -p lictor --test blocks -- --ignored saga::` runs it, and so does `make chaos`; it takes some minutes.

use std::collections::HashMap;

use lictor_testkit::{Consul, Sidecar, eventually_is};
use rustix::process::Signal;
use serde_json::Value as Json;

use super::super::{LICTOR, yaml};
use super::service::{Fate, Service};
use super::{get, post, saga, shop};

/// Groups of two instances and a service, at the same time.
const GROUPS: usize = 4;
/// In each group an instance is killed so often, each time in the middle of an order for each point.
const ROUNDS: usize = 2;
/// And its service so often, each time in the middle of one order.
const SERVICE_KILLS: usize = 20;

/// Where an order is when somebody is killed: at which call, and how far in it.
#[derive(Clone, Copy, Debug)]
struct Point {
    path: &'static str,
    moment: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// It was tried in vain, and is about to be called again.
    Before,
    /// The service has it, and has not done it.
    During,
    /// It has had its effect, and nobody was told.
    After,
}

/// All points: three steps, and two compensations.
fn points() -> Vec<Point> {
    let paths = ["/api/a/do", "/api/b/do", "/api/c/do", "/api/b/undo", "/api/a/undo"];
    let moments = [Moment::Before, Moment::During, Moment::After];
    paths.into_iter().flat_map(|path| moments.map(|moment| Point { path, moment })).collect()
}

/// Two instances of one service.
struct Group {
    name: String,
    service: Service,
    instances: [Sidecar; 2],
}

impl Group {
    fn start(consul: &Consul, number: usize) -> Self {
        let (name, service) = (format!("orders-{number}"), Service::start());
        let instances = [(); 2].map(|()| instance(consul, &name, &service));
        Self { name, service, instances }
    }

    /// Brings an order to the point, and leaves it there.
    fn begin(&self, lictor: &Sidecar, order: &str, point: Point) {
        let fates = match point.moment {
            Moment::Before => vec![Fate::Breaks { is_after: false }; 500],
            Moment::During => vec![Fate::Waits { is_after: false }],
            Moment::After => vec![Fate::Waits { is_after: true }],
        };
        self.service.will_of(order, point.path, &fates);
        if point.path.ends_with("/undo") {
            self.service.will_of(order, "/api/c/do", &[Fate::Says(422); 500]);
        }
        assert_eq!(post(lictor, "?wait=0s", &saga(order, &["a", "b", "c"])).0, 202, "{order}");
    }

    /// Whether it is there.
    fn is_at(&self, order: &str, point: Point) -> bool {
        match point.moment {
            Moment::Before => {
                let key = point.path.trim_start_matches("/api/").replace('/', ":");
                self.service.was_called(&format!("{order}:{key}"))
            }
            Moment::During | Moment::After => self.service.waits(order, point.path),
        }
    }

    /// An instance is killed while an order is at each point. What its calls still do they do afterwards.
    fn kill_an_instance(&mut self, consul: &Consul, round: usize) -> Vec<String> {
        let orders: Vec<(String, Point)> =
            points().into_iter().enumerate().map(|(number, point)| (format!("i{round}-{number}"), point)).collect();
        let killed = round % 2;
        self.service.open(false);
        for (order, point) in &orders {
            self.begin(&self.instances[killed], order, *point);
        }
        let missing =
            || -> Vec<&(String, Point)> { orders.iter().filter(|(order, point)| !self.is_at(order, *point)).collect() };
        eventually_is("each order is at its point", missing, Vec::is_empty);
        self.instances[killed].signal(Signal::KILL);
        for (order, point) in &orders {
            self.service.will_of(order, point.path, &[]);
        }
        self.service.open(true);
        self.instances[killed] = instance(consul, &self.name, &self.service);
        orders.into_iter().map(|(order, _)| order).collect()
    }

    /// The service is killed while one order is at a point, and started again.
    fn kill_the_service(&self, number: usize, point: Point) -> String {
        let order = format!("s-{number}");
        self.service.open(false);
        self.begin(&self.instances[number % 2], &order, point);
        eventually_is("the order is at its point", || self.is_at(&order, point), |is_there| *is_there);
        self.service.kill();
        self.service.will_of(&order, point.path, &[]);
        self.service.open(true);
        self.service.run();
        order
    }

    fn end(&self, order: &str) -> Json {
        let is_ended = |page: &Json| matches!(page["status"].as_str(), Some("completed" | "failed" | "manual"));
        // A session that nobody renews ends after 10 to 20 s, and each instance takes over 8 at a time.
        for _ in 0..30 {
            let body = saga(order, &["a", "b", "c"]);
            let (_, page) = post(&self.instances[0], "?wait=2s", &body);
            if is_ended(&page) {
                return page;
            }
        }
        panic!("{order} has not ended: {}", get(&self.instances[0], order).1)
    }

    /// Whole, or undone, and nothing twice; how it ended.
    fn judge(&self, order: &str) -> String {
        let page = self.end(order);
        let effects = self.service.store(|store| {
            let of = store.effects.iter().filter(|(of, _)| of == order).map(|(_, path)| path.clone());
            of.collect::<Vec<_>>()
        });
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for path in &effects {
            *counts.entry(path).or_default() += 1;
        }
        let has = |step: &str, word: &str| counts.contains_key(format!("/api/{step}/{word}").as_str());
        assert!(counts.values().all(|count| *count == 1), "{order}: an effect twice: {effects:?}");
        match page["status"].as_str() {
            Some("completed") => {
                let is_whole = ["a", "b", "c"].iter().all(|step| has(step, "do") && !has(step, "undo"));
                assert!(is_whole, "{order} is completed: {effects:?}");
            }
            Some("failed") => {
                let is_undone = ["a", "b", "c"].iter().all(|step| has(step, "do") == has(step, "undo"));
                assert!(is_undone, "{order} has failed: {effects:?}");
            }
            other => panic!("{order} is {other:?}: {page}"),
        }
        page["status"].as_str().unwrap_or_default().to_owned()
    }
}

fn instance(consul: &Consul, name: &str, service: &Service) -> Sidecar {
    let more = shop(service).replace("listen: 0, ", "listen: 0, breaker: off, ejection: off, ");
    let yaml = yaml(consul, "saga: true", &more).replace("service: orders\n", &format!("service: {name}\n"));
    Sidecar::serve(LICTOR, &yaml).up()
}

fn run(consul: &Consul, number: usize) -> HashMap<String, usize> {
    let mut group = Group::start(consul, number);
    let mut orders = Vec::new();
    let points = points();
    for kill in 0..SERVICE_KILLS {
        let order = group.kill_the_service(kill, points[(kill + number * 5) % points.len()]);
        group.end(&order);
        orders.push(order);
    }
    for round in 0..ROUNDS {
        let begun = group.kill_an_instance(consul, round);
        for order in &begun {
            group.end(order);
        }
        orders.extend(begun);
    }
    let mut ends = HashMap::new();
    for order in &orders {
        *ends.entry(group.judge(order)).or_default() += 1;
    }
    ends
}

#[test]
#[ignore = "takes minutes: `make chaos`"]
fn whoever_is_killed_at_whichever_step_nothing_is_half_done_and_nothing_done_twice() {
    let consul = Consul::dev();
    let mut ends: HashMap<String, usize> = HashMap::new();
    std::thread::scope(|scope| {
        let groups: Vec<_> = (0..GROUPS)
            .map(|number| {
                scope.spawn({
                    let consul = &consul;
                    move || run(consul, number)
                })
            })
            .collect();
        for group in groups {
            for (end, count) in group.join().unwrap() {
                *ends.entry(end).or_default() += count;
            }
        }
    });
    let runs: usize = ends.values().sum();
    println!("{runs} orders, each with a kill in its middle: {ends:?}, none half done, none with an effect twice");
    assert!(runs >= 200 && ends.len() == 2, "{ends:?}");
}

//! Which source of several is heeded, and what a file that is lost is told from.

use lictor_config::{Origin, Sources};

use super::*;

/// A file, and the one of `production` beside it.
fn staged(file: &str, production: &str, pairs: &[(&str, &str)]) -> Sources {
    let production = Text { name: "lictor.production.yaml".to_owned(), text: production.to_owned() };
    Sources { file: Some(text(file)), staged: Some(production), env: env(pairs), ..Sources::default() }
}

#[test]
fn the_file_of_an_environment_lies_over_the_file() {
    let file = "registration: off\nport: 8080\nupstreams: {users: {listen: 3001, timeout: 5s}}\nlog: {level: debug}\n";
    let over = "log: {level: warn}\napp: {port: 9090}\nupstreams: {users: {timeout: 1s}, carts: 3002}\n";
    let variables = [("ENVIRONMENT", "production"), ("LICTOR_LOG", "error"), ("PORT", "1")];
    let loaded = staged(file, over, &variables[..1]).load().unwrap();
    let Config { upstreams, app, log, .. } = &loaded.config;
    let [users, carts] = &upstreams[..] else { panic!() };
    assert_eq!(users.listen.as_ref().unwrap().address.to_string(), "127.0.0.1:3001");
    assert_eq!(users.policy.timeouts.total, Some(Duration::from_secs(1)));
    assert_eq!((carts.name.as_str(), log.level.as_str()), ("carts", "warn"));
    assert_eq!(app.address.as_ref().unwrap().to_string(), "127.0.0.1:9090", "said in another way, by the later source");
    assert_eq!(loaded.compat_env_used, ["ENVIRONMENT"]);
    let origin = |path: &str| {
        let value = loaded.values.iter().find(|value| value.path == path);
        value.unwrap_or_else(|| panic!("{path}")).origin.to_string()
    };
    assert_eq!(origin("log.level"), "lictor.production.yaml:1:14");
    assert_eq!(origin("upstreams.users.timeout"), "lictor.production.yaml:3:30");
    assert_eq!(origin("upstreams.users.listen"), "lictor.yaml:3:29");
    let louder = staged(file, over, &variables).load().unwrap().config;
    assert_eq!(louder.log.level, "error", "variables are over both");
    assert_eq!(louder.app.address.unwrap().to_string(), "127.0.0.1:9090", "older services' ones are under both");
}

#[test]
fn mistakes_in_both_files_are_told_with_their_places() {
    let said = |file: &str, over: &str| staged(file, over, &[]).load().unwrap_err().to_string();
    for (file, over) in [
        ("registration: off\nworkers: lots\n", "log: {format: xml}\n"),
        ("registration: off\nlog: {formt: xml}\n", "log: {lvl: debug}\n"),
        ("registration: [off\n", "log: {level: debug\n"),
    ] {
        let said = said(file, over);
        let places = said.contains("lictor.yaml:") && said.contains("lictor.production.yaml:");
        assert!(places, "{said}");
    }
    let sources = staged("registration: off\n", "log: {level: debug}\n", &[]);
    assert_eq!(Sources { staged: None, ..sources.clone() }.emptied(&Sources { staged: None, ..sources.clone() }), None);
    assert_eq!(sources.emptied(&Sources { staged: None, ..sources.clone() }), None, "it may come");
    let gone = Sources { staged: None, ..sources.clone() }.emptied(&sources).unwrap();
    assert!(gone.contains("lictor.production.yaml is not there any more"), "{gone}");
    assert!(staged("registration: off\n", "", &[]).emptied(&sources).unwrap().contains("production.yaml says nothing"));
}

#[test]
fn what_is_no_name_of_an_environment_is_told_and_ignored() {
    let warned = |file: Option<Text>, pairs: &[(&str, &str)]| {
        let off = [("registration".to_owned(), "off".to_owned())];
        load(file.as_ref(), &env(pairs), &off).unwrap().warnings.to_string()
    };
    let told = warned(Some(text("")), &[("ENVIRONMENT", "../x"), ("APP_ENV", "local"), ("NODE_ENV", "a b")]);
    assert!(told.contains("ENVIRONMENT is ignored: `../x`") && !told.contains("NODE_ENV"), "{told}");
    assert_eq!(warned(Some(text("")), &[("ENVIRONMENT", " "), ("APP_ENV", "local")]), "");
    assert_eq!(warned(None, &[("ENVIRONMENT", "../x")]), "", "there is no file to be beside");
}

#[test]
fn a_flag_may_add_to_a_shorthand() {
    let flags = [
        ("upstreams.users.listen.tls.cert", "/c"),
        ("upstreams.users.listen.tls.key", "/k"),
        ("upstreams.carts.tls", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let yaml = text("registration: off\nupstreams: {users: {listen: 3001}, carts: 3002}\n");
    let config = load(Some(&yaml), &env(&[]), &flags).unwrap_or_else(|report| panic!("{report}")).config;
    let [users, carts] = &config.upstreams[..] else { panic!() };
    assert!(users.listen.as_ref().unwrap().tls.is_some());
    assert_eq!(carts.listen.as_ref().unwrap().address.to_string(), "127.0.0.1:3002");
    assert!(carts.tls.is_some());
}

#[test]
fn no_file_at_all_is_enough() {
    let env = env(&[
        ("SERVICE_NAME", "order-service"),
        ("SERVICE_PORT", "8082"),
        ("LICTOR_UPSTREAMS", "user-service:3001, legacy:9001=10.0.0.7:80|10.0.0.8:80"),
        ("CONSUL_HOST", "consul"),
        ("RETRY_MAX_ATTEMPTS", "5"),
        ("CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "30"),
        ("LICTOR_DEFAULTS_TIMEOUT", "7s"),
    ]);
    let loaded = load(None, &env, &[]).unwrap_or_else(|report| panic!("{report}"));
    let config = loaded.config;
    assert_eq!(config.service.as_deref(), Some("order-service"));
    assert_eq!(config.consul.address, Some(ConsulAddress::Http("consul".to_owned(), 8500)));
    assert_eq!(config.defaults.retry.attempts, 5);
    assert_eq!(config.defaults.breaker.recovery_timeout, Duration::from_secs(30));
    assert_eq!(config.upstreams[0].policy.timeouts.total, Some(Duration::from_secs(7)));
    assert_eq!(config.upstreams[1].source, Source::Static(vec!["10.0.0.7:80".to_owned(), "10.0.0.8:80".to_owned()]));
    assert!(loaded.compat_env_used.contains(&"RETRY_MAX_ATTEMPTS".to_owned()));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}

#[test]
fn precedence_is_older_variables_file_standard_variables_flags() {
    let yaml = text("service: a\nport: 1\nconsul: {address: 'http://file:1'}\ndefaults: {retry: {attempts: 2}}\n");
    let both = env(&[("SERVICE_NAME", "b"), ("RETRY_MAX_ATTEMPTS", "9"), ("CONSUL_HTTP_ADDR", "env:2")]);
    let config = load(Some(&yaml), &both, &[]).unwrap().config;
    assert_eq!((config.service.as_deref(), config.defaults.retry.attempts), (Some("a"), 2));
    assert_eq!(config.consul.address, Some(ConsulAddress::Http("env".to_owned(), 2)));
    let flag = ("defaults.retry.attempts".to_owned(), "4".to_owned());
    let loaded = load(Some(&yaml), &both, &[flag]).unwrap();
    assert_eq!(loaded.config.defaults.retry.attempts, 4);
    let origin = |path: &str| loaded.values.iter().find(|value| value.path == path).unwrap().origin.clone();
    assert_eq!(origin("defaults.retry.attempts"), Origin::Flag);
    assert_eq!(origin("consul.address"), Origin::Env("CONSUL_HTTP_ADDR".to_owned()));
    assert_eq!(origin("service"), Origin::File { name: "lictor.yaml".to_owned(), line: 1, column: 10 });
    assert_eq!(origin("defaults.timeout"), Origin::Default);
}

/// Of keys that say the same in different ways, the source that comes last is heeded, as with any one key.
#[test]
fn of_two_ways_to_say_one_thing_the_later_source_wins() {
    let path = |config: &Config| {
        let consul = &config.consul;
        let token = consul.token.as_ref().map(|token| token.reveal().to_owned());
        (token, consul.token_file.as_ref().map(|path| path.display().to_string()))
    };
    let (token, file) = (|it: &str| (Some(it.to_owned()), None), |it: &str| (None, Some(it.to_owned())));
    let head = "service: a\nport: 1\n";
    let flag = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    for (yaml, vars, flags, expected) in [
        ("consul: {token: f}", vec![("CONSUL_HTTP_TOKEN_FILE", "/e")], vec![], file("/e")),
        ("consul: {token_file: /f}", vec![("CONSUL_HTTP_TOKEN", "e")], vec![], token("e")),
        ("consul: {token_file: /f}", vec![("LICTOR_CONSUL_TOKEN", "e")], vec![], token("e")),
        ("consul: {token: f}", vec![], flag("consul.token_file", "/g"), file("/g")),
        ("consul: {}", vec![("CONSUL_HTTP_TOKEN_FILE", "/e")], flag("consul.token", "g"), token("g")),
        ("consul: {}", vec![("CONSUL_HTTP_TOKEN_FILE", "/e"), ("CONSUL_HTTP_TOKEN", "e")], vec![], file("/e")),
    ] {
        let loaded = load(Some(&text(&format!("{head}{yaml}\n"))), &env(&vars), &flags);
        let loaded = loaded.unwrap_or_else(|report| panic!("{yaml} {vars:?} {flags:?}: {report}"));
        assert_eq!(path(&loaded.config), expected, "{yaml} {vars:?} {flags:?}");
    }
    let check = |yaml: &str, flags: &[(String, String)]| {
        let loaded =
            load(Some(&text(&format!("{head}{yaml}\n"))), &env(&[]), flags).unwrap_or_else(|it| panic!("{it}"));
        format!("{:?}", loaded.config.registration.unwrap().checks)
    };
    assert!(check("registration: {checks: [{tcp: true}]}", &flag("check", "/flag")).contains("/flag"));
    assert!(check("registration: {checks: [{tcp: true}]}", &flag("check.http", "/flag")).contains("/flag"));
    let attempts = |yaml: &str, vars: &[(&str, &str)]| {
        let loaded = load(Some(&text(&format!("{head}{yaml}\n"))), &env(vars), &[]).unwrap_or_else(|it| panic!("{it}"));
        loaded.config.defaults.retry.attempts
    };
    let retries = "defaults: {retry: {max_retries: 4}}";
    assert_eq!(attempts(retries, &[("RETRY_MAX_ATTEMPTS", "2")]), 5, "older services' variables are under the file");
    assert_eq!(attempts(retries, &[("LICTOR_DEFAULTS_RETRY_ATTEMPTS", "2")]), 2);
    let app = load(Some(&text("service: a\napp: {address: '127.0.0.1:2'}\n")), &env(&[("LICTOR_PORT", "3")]), &[]);
    assert_eq!(app.unwrap().config.app.address.unwrap().to_string(), "127.0.0.1:3");
}

#[test]
fn a_file_that_is_lost_or_half_written_is_told_from_one_that_says_less() {
    let sources = |text: Option<&str>| {
        let file = text.map(|text| Text { name: "lictor.yaml".to_owned(), text: text.to_owned() });
        Sources { file, ..Sources::default() }
    };
    let full = sources(Some("service: a\nupstreams: {users: 3001}\n"));
    for lost in ["", " \n", "# nothing\n", "---\n", "{}", "null", "~", "service:", "service: a\nupstreams:\n"] {
        let told = sources(Some(lost)).emptied(&full).unwrap_or_else(|| panic!("{lost:?}"));
        assert!(told.starts_with("lictor.yaml"), "{told}");
    }
    assert!(sources(None).emptied(&full).is_some());
    let blocks = sources(Some(
        "service: a\nupstreams:\n  carts: 3000\n  users:\n    listen: 3001\n    static:\n    - a:1\n    - b:1\n",
    ));
    for cut in ["listen:", "listen: 3001\n    static:", "static:\n    - a:1\n    -", ""] {
        let lost = format!("service: a\nupstreams:\n  users:\n    {cut}");
        assert!(sources(Some(&lost)).emptied(&blocks).is_some_and(|told| told.contains("upstreams.users")), "{lost:?}");
    }
    for said in ["upstreams:\n  users:\n  carts: 3000\n", "upstreams:\n  users: {}\n", "upstreams:\n  pay:\n"] {
        assert_eq!(sources(Some(said)).emptied(&blocks), None, "{said:?}");
    }
    for said in ["service: a\n", "service: a\nupstreams: {}\n", "defaults:\nservice: a\n", "upstreams: [", "- a\n"] {
        assert_eq!(sources(Some(said)).emptied(&full), None, "{said:?}");
    }
    // Nothing is lost where nothing was said.
    for before in [None, Some(""), Some("service:\n"), Some("# nothing")] {
        for after in [None, Some(""), Some("upstreams:\n"), Some("service: a\n")] {
            assert_eq!(sources(after).emptied(&sources(before)), None, "{before:?} {after:?}");
        }
    }
}

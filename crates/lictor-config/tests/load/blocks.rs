//! `building_blocks`.

use lictor_config::{BuildingBlocks, ConfigAccess};

use super::*;

const TOKEN: &str = "token: 0123456789abcdef";

fn blocks(keys: &str) -> Config {
    good(&format!("service: orders\nport: 1\nbuilding_blocks: {{{keys}, {TOKEN}}}\n"))
}

#[test]
fn they_are_off_unless_asked_for_and_need_consul() {
    let off = good("registration: off\n");
    assert!(!off.building_blocks.is_on() && off.consul.address.is_none());
    assert_eq!(
        (off.building_blocks.config_prefix.as_str(), off.building_blocks.lock_prefix.as_str()),
        ("config/", "locks/")
    );
    let is = |keys: &str| {
        let config = good(&format!("registration: off\nbuilding_blocks: {{{keys}, {TOKEN}}}\n"));
        assert_eq!(config.consul.address.is_some(), config.building_blocks.is_on(), "{keys}");
        let BuildingBlocks { services, config, locks, .. } = config.building_blocks;
        (services, config, locks)
    };
    assert_eq!(is("services: true"), (true, ConfigAccess::Off, false));
    assert_eq!(is("config: read"), (false, ConfigAccess::Read, false));
    assert_eq!(is("config: write, locks: true"), (false, ConfigAccess::Write, true));
    assert_eq!(is("config: off, locks: false"), (false, ConfigAccess::Off, false));
    assert!(blocks("meta: true").building_blocks.meta);
    let sagas = blocks("saga: true").building_blocks;
    assert_eq!((sagas.is_on(), sagas.saga, sagas.saga_prefix.as_str()), (true, true, "sagas/"));
    assert_eq!(blocks("saga: true, saga_prefix: shop/sagas/").building_blocks.saga_prefix, "shop/sagas/");
    let prefixes = blocks("config: read, config_prefix: order-service/, lock_prefix: a/b/").building_blocks;
    assert_eq!((prefixes.config_prefix.as_str(), prefixes.lock_prefix.as_str()), ("order-service/", "a/b/"));
}

#[test]
fn a_variable_may_have_the_token() {
    let file = text("registration: off\nbuilding_blocks: {locks: true}\n");
    let by_variable = env(&[("LICTOR_BUILDING_BLOCKS_TOKEN", "0123456789abcdef")]);
    let loaded = load(Some(&file), &by_variable, &[]).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.config.building_blocks.token.is_some());
    assert!(
        loaded.values.iter().all(|value| !format!("{value:?}").contains("0123456789abcdef")),
        "it is shown nowhere"
    );
}

#[test]
fn what_could_not_be_kept_is_refused() {
    for (keys, message) in [
        ("locks: true", "there is none"),
        ("locks: true, token: short", "at least 16 characters"),
        ("locks: true, token: '0123 456789abcdef'", "no spaces"),
        ("meta: true, token: 0123456789abcdef", "no registration"),
        ("config: readonly, token: 0123456789abcdef", "unknown value `readonly`"),
        ("config_prefix: config", "must end with `/`"),
        ("config_prefix: ''", "must not be empty"),
        ("config_prefix: /", "1 to 512 bytes"),
        ("config_prefix: /a/", "is no key of KV"),
        ("lock_prefix: a/../b/", "is no key of KV"),
        ("lock_prefix: a//", "is no key of KV"),
        ("saga: true, token: 0123456789abcdef", "no name of ours"),
        ("saga: yes please, token: 0123456789abcdef", "saga"),
        ("saga_prefix: sagas", "must end with `/`"),
        ("elections: true", "unknown field `elections`"),
    ] {
        let report = bad(&format!("registration: off\nbuilding_blocks: {{{keys}}}\n")).to_string();
        assert!(report.contains(message), "{keys}: {report}");
    }
}

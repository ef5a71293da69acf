//! `building_blocks`: what the application may ask of Consul through us.

use super::bearer_token;
use crate::config::{BuildingBlocks, ConfigAccess};
use crate::refused;
use crate::tree::Node;

pub(super) fn building_blocks(node: &Node<'_>, is_registered: bool, is_named: bool) -> BuildingBlocks {
    let section = node.section(&[]);
    let meta = section.field("meta", "`PATCH /v1/self/meta`: Meta of our own registration.");
    let access = [("off", ConfigAccess::Off), ("read", ConfigAccess::Read), ("write", ConfigAccess::Write)];
    let config = section.field("config", "`/v1/config/KEY`: keys of KV; `write`: also `PUT`, by compare-and-set.");
    let saga = section.field(
        "saga",
        "`/v1/saga`: steps of services in their order, and when one fails, the compensations of those before it.",
    );
    let token = section.field(
        "token",
        "What the application shows (`Authorization: Bearer`); `lictor run` gives it to the application as LICTOR_TOKEN.",
    );
    let blocks = BuildingBlocks {
        services: section
            .field(
                "services",
                "`/v1/services`, `/v1/services/NAME`, `/v1/watch/services/NAME`: what is in the catalog.",
            )
            .boolean(false),
        config: config.choice(&access, Some("off")).unwrap_or_default(),
        config_prefix: prefix(
            &section.field("config_prefix", "What the keys of `config` begin with in KV."),
            "config/",
        ),
        locks: section.field("locks", "`/v1/locks/NAME`: locks on Consul's sessions.").boolean(false),
        lock_prefix: prefix(&section.field("lock_prefix", "What the keys of `locks` begin with in KV."), "locks/"),
        saga: saga.boolean(false),
        saga_prefix: prefix(&section.field("saga_prefix", "What the keys of `saga` begin with in KV."), "sagas/"),
        meta: meta.boolean(false),
        token: bearer_token(&token),
    };
    if blocks.is_on() && !token.is_set() {
        let help = "set `building_blocks.token` (LICTOR_BUILDING_BLOCKS_TOKEN): `openssl rand -hex 32` makes one";
        section.node().error("they are for whoever shows a token, and there is none", Some(help.to_owned()));
    }
    if blocks.meta && !is_registered {
        meta.error("there is no registration whose Meta could be changed", None);
    }
    if blocks.saga && !is_named {
        let help = "set `service`: other instances of it go on with what this one leaves";
        saga.error("there is no name of ours that they could be kept under", Some(help.to_owned()));
    }
    section.finish();
    blocks
}

/// A folder of KV: whoever has the block has no key beside it.
fn prefix(node: &Node<'_>, default: &str) -> String {
    let prefix = node.text(Some(default)).unwrap_or_default();
    match prefix.strip_suffix('/') {
        Some(folder) => node.obeys(refused::kv_key(folder)),
        None => node.error("must end with `/`", None),
    }
    prefix
}

//! Consul's answers about a service or a prepared query, turned into instances: what they are, where, and how well.

use std::collections::BTreeMap;
use std::fmt;

use lictor_config::{Consistency, Query};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::blocking::Ask;
use super::connection::{Answer, Connection, encode};
use super::error::ConsulError;

/// No more instances of one service are taken.
const INSTANCES_MAX: usize = 20_000;

/// One instance of a service, as Consul has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) node: String,
    pub(crate) id: String,
    /// Whose instance it is; empty in what an earlier version remembered.
    #[serde(default)]
    pub(crate) service: String,
    pub(crate) host: String,
    /// 0: it has none that could be dialled.
    pub(crate) port: u16,
    pub(crate) tags: Vec<String>,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) weight_passing: u32,
    pub(crate) weight_warning: u32,
    pub(crate) condition: Condition,
}

/// The aggregate of all checks, the node's included (Consul: the worst one counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    Passing,
    Warning,
    /// Critical only because Consul has not run its check yet, as after a restart of the agent.
    Unchecked,
    Critical,
    /// An operator took it, or its node, out.
    Maintenance,
}

impl Condition {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Unchecked => "unchecked",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
        }
    }
}

impl Instance {
    /// Its weight as it is; 0 takes it out.
    pub(crate) fn weight(&self) -> u32 {
        match self.condition {
            Condition::Passing => self.weight_passing,
            Condition::Warning => self.weight_warning,
            Condition::Unchecked | Condition::Critical | Condition::Maintenance => 0,
        }
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.weight() > 0 && self.port != 0 && !self.host.is_empty()
    }
}

/// Asks for a service's instances, or for those that a prepared query finds. Nothing waits for a change of the latter.
pub(crate) async fn get(
    connection: &mut Connection,
    query: &Query,
    ask: Ask,
    consistency: Consistency,
) -> Result<(Answer, Vec<Instance>), ConsulError> {
    let name = encode(&query.service);
    let path =
        if query.is_prepared { format!("/v1/query/{name}/execute") } else { format!("/v1/health/service/{name}") };
    let mut more: Vec<(&str, &str)> = query.tags.iter().map(|tag| ("tag", tag.as_str())).collect();
    more.extend(query.filter.iter().map(|filter| ("filter", filter.as_str())));
    more.extend(query.datacenter.iter().map(|datacenter| ("dc", datacenter.as_str())));
    let answer = connection.query(&path, ask, consistency, &more).await?.accepted()?;
    let parse = if query.is_prepared { parse_prepared } else { parse };
    let instances = parse(&answer.body).map_err(|error| ConsulError::Decode(error.to_string()))?;
    Ok((answer, instances))
}

/// Parses the answer. Unknown fields are ignored, and any list or map may be `null`.
pub(crate) fn parse(body: &[u8]) -> Result<Vec<Instance>, serde_json::Error> {
    serde_json::from_slice(body).map(|Instances(instances)| instances)
}

/// The same for what executing a prepared query answers.
fn parse_prepared(body: &[u8]) -> Result<Vec<Instance>, serde_json::Error> {
    serde_json::from_slice(body).map(|Executed { nodes }| nodes.unwrap_or_default().0)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Executed {
    #[serde(default)]
    nodes: Option<Instances>,
}

/// Those of an answer, in order. Each is made as it is read: what lictor does not keep of an answer is never there at once.
#[derive(Default)]
struct Instances(Vec<Instance>);

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Instances;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of instances")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Instances, A::Error> {
        let mut instances = Vec::new();
        while let Some(entry) = entries.next_element::<Entry>()? {
            if instances.len() == INSTANCES_MAX {
                return Err(A::Error::custom(format!("it lists more than {INSTANCES_MAX} instances")));
            }
            instances.push(Instance::from(entry));
        }
        instances.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
        // Who is named twice counts as he was named first: whoever looks for him finds one.
        instances.dedup_by(|again, first| (&again.node, &again.id) == (&first.node, &first.id));
        Ok(Instances(instances))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    node: String,
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Service", default)]
    name: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default = "one")]
    passing: i64,
    #[serde(default = "one")]
    warning: i64,
}

fn one() -> i64 {
    1
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID", default)]
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    output: String,
    #[serde(default)]
    r#type: String,
}

impl Check {
    fn condition(&self) -> Condition {
        let is_maintenance = self.id == "_node_maintenance" || self.id.starts_with("_service_maintenance:");
        match self.status.as_str() {
            "critical" if is_maintenance => Condition::Maintenance,
            // A check that ran says what it saw; one that has not yet run says nothing.
            "critical" if self.output.is_empty() && matches!(self.r#type.as_str(), "http" | "tcp" | "grpc") => {
                Condition::Unchecked
            }
            "passing" => Condition::Passing,
            "warning" => Condition::Warning,
            _ => Condition::Critical,
        }
    }
}

impl From<Entry> for Instance {
    fn from(entry: Entry) -> Self {
        let checks = entry.checks.unwrap_or_default();
        let condition = checks.iter().map(Check::condition).max().unwrap_or(Condition::Passing);
        let Service { id, name, address, port, tags, meta, weights } = entry.service;
        let meta = meta.unwrap_or_default();
        let weights = weights.unwrap_or(Weights { passing: 1, warning: 1 });
        // Teams that cannot set Consul's weights write one into Meta.
        let of_meta = meta.get("weight").and_then(|weight| weight.parse().ok());
        let is_default = weights.passing == 1 && weights.warning == 1;
        let clamp = |weight: i64| weight.clamp(0, 65_535) as u32;
        let passing = of_meta.filter(|_| is_default).unwrap_or(weights.passing);
        let host = if address.is_empty() { entry.node.address } else { address };
        Self {
            node: entry.node.node,
            id,
            service: name,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: u16::try_from(port).unwrap_or(0),
            tags: tags.unwrap_or_default(),
            meta,
            weight_passing: clamp(passing),
            weight_warning: clamp(weights.warning),
            condition,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_external_node_without_agent_or_checks_is_passing() {
        let body = br#"[{"Node":{"ID":"","Node":"ext1","Address":"198.51.100.9","Datacenter":"dc1","TaggedAddresses":null,
            "Meta":{"external-node":"true"}},"Service":{"ID":"e1","Service":"ext","Tags":[],"Address":"","Meta":null,"Port":99,
            "Weights":{"Passing":1,"Warning":1}},"Checks":[]}]"#;
        let [instance] = &parse(body).unwrap()[..] else { panic!() };
        assert_eq!(
            (instance.host.as_str(), instance.port, instance.condition),
            ("198.51.100.9", 99, Condition::Passing)
        );
        assert!(instance.is_usable());
    }

    fn with_checks(checks: &str) -> Instance {
        let body = format!(
            r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Service":{{"ID":"a","Port":80,"Weights":{{"Passing":10,"Warning":2}}}},"Checks":{checks}}}]"#
        );
        parse(body.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn the_worst_check_counts_and_maintenance_is_told_apart() {
        let serf = r#"{"CheckID":"serfHealth","Status":"passing"}"#;
        for (check, condition, weight) in [
            (r#"{"CheckID":"c","Status":"passing"}"#, Condition::Passing, 10),
            (r#"{"CheckID":"c","Status":"warning"}"#, Condition::Warning, 2),
            (r#"{"CheckID":"c","Status":"critical"}"#, Condition::Critical, 0),
            (r#"{"CheckID":"c","Status":"critical","Type":"http","Output":"500"}"#, Condition::Critical, 0),
            (r#"{"CheckID":"c","Status":"critical","Type":"http","Output":""}"#, Condition::Unchecked, 0),
            (r#"{"CheckID":"_service_maintenance:a","Status":"critical"}"#, Condition::Maintenance, 0),
            (r#"{"CheckID":"_node_maintenance","Status":"critical"}"#, Condition::Maintenance, 0),
            (r#"{"CheckID":"c","Status":"unheard-of"}"#, Condition::Critical, 0),
        ] {
            let instance = with_checks(&format!("[{serf},{check}]"));
            assert_eq!((instance.condition, instance.weight()), (condition, weight), "{check}");
        }
        assert_eq!(with_checks("null").condition, Condition::Passing);
    }

    #[test]
    fn a_port_outside_of_the_range_cannot_be_used() {
        let body = br#"[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Port":70000}}]"#;
        assert!(!parse(body).unwrap()[0].is_usable());
    }

    proptest! {
        #[test]
        fn no_answer_is_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&body);
        }
    }
}

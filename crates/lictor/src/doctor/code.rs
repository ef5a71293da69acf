//! What the doctor can find. docs/doctor.md has each with what it means; a test holds the two together.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Requests will fail, or lictor will not start.
    Error,
    /// It works, until something else happens.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal, $severity:ident, $title:literal;)*) => {
        /// A kind of finding. Numbers stay as they are: people search for them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// `LIC-C001`
            pub(crate) fn number(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("LIC-C", $number),)*
                }
            }

            pub(crate) fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }

            /// What it is, in a sentence.
            #[cfg(test)]
            pub(crate) fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }
        }
    };
}

codes! {
    // Consul itself
    Unreachable = "001", Error, "The agent does not answer";
    NoLeader = "002", Error, "Consul has no leader";
    OldConsul = "003", Warning, "Consul is older than 1.8";
    TokenRefused = "004", Error, "Consul does not know the token";
    MissingRule = "005", Error, "The token lacks a right that lictor needs";
    RightsUnknown = "006", Note, "This Consul does not say what a token may do";
    Clock = "007", Warning, "The agent's clock and ours differ by more than 5 s";
    Connections = "008", Warning, "The watches take more than half of the agent's connections per client";
    // Our registration
    ConfigRefused = "100", Error, "The configuration is refused";
    ShortDeregister = "101", Warning, "`deregister_after` is below Consul's least of 1 m";
    RemoteAgent = "102", Note, "The agent is not on this machine";
    ConfigWarns = "103", Warning, "The configuration has something that is probably not meant";
    CheckOutOfReach = "104", Error, "Consul's check goes to loopback, and the agent is elsewhere";
    CheckFails = "105", Warning, "A check would fail now";
    CheckOverlaps = "106", Warning, "A check's timeout is not shorter than its interval";
    CheckTooRare = "107", Warning, "A check runs no more often than `deregister_after`";
    IdTaken = "108", Error, "Another service has our instance id on this agent";
    CheckRelayed = "109", Note, "lictor runs a check in Consul's place";
    SeveralAgents = "110", Warning, "The address leads to several agents";
    IdContested = "111", Warning, "Another address has our instance id on this agent";
    // What we call
    UnknownService = "201", Error, "Consul knows no such service";
    NothingPassing = "202", Error, "No instance is passing";
    NothingMatches = "203", Error, "No instance has the tags or matches the filter";
    NoWeight = "204", Error, "The usable instances all have weight 0";
    QueryRefused = "205", Error, "Consul refuses the query";
    NoSuchHost = "206", Error, "A static endpoint's name cannot be resolved";
    OtherProtocol = "207", Warning, "Instances say another protocol than the configuration";
    // This machine
    PortInUse = "301", Error, "A port is in use";
    Running = "302", Note, "A sidecar answers on the admin address";
    PortPrivileged = "303", Error, "A port needs a privilege that we do not have";
    CannotListen = "304", Error, "An address cannot be listened on";
    OpenFiles = "305", Warning, "The limit on open files is below what the limits allow in flight";
    TlsUnusable = "306", Error, "A TLS file cannot be used";
    TlsExpires = "307", Warning, "A certificate ends within 14 days";
    TlsExpired = "308", Error, "A certificate is not valid any more";
    Grace = "309", Warning, "Draining may take longer than `TERMINATION_GRACE`";
    KnownToken = "401", Error, "A token stands in public tutorials";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> String {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn every_code_is_explained_as_it_is() {
        let page = file("docs/doctor.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `LIC-"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        for (row, code) in rows.iter().zip(Code::ALL) {
            assert_eq!(row.len(), 4, "{row:?}");
            assert_eq!(row[..3], [&format!("`{}`", code.number()), code.severity().as_str(), code.title()]);
            assert!(row[3].ends_with('.'), "{row:?} says what to do");
        }
        assert_eq!(rows.len(), Code::ALL.len());
    }

    #[test]
    fn every_code_has_a_test_and_a_number_of_its_own() {
        let tests = file("tests/mesh/doctor.rs");
        let mut numbers: Vec<&str> = Code::ALL.iter().map(|code| code.number()).collect();
        for number in &numbers {
            assert!(tests.contains(&format!("\"{}\"", &number["LIC-C".len()..])), "no test finds {number}");
        }
        numbers.dedup();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert!(numbers.is_sorted());
    }
}

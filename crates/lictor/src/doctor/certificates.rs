//! When certificates end.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lictor_config::Config;

use super::{Code, Findings};

const SOON: Duration = Duration::from_secs(14 * 86_400);

pub(super) fn examine(found: &mut Findings, config: &Config) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    for path in files(config) {
        let Some(end) = lictor_tls::first_end(&path) else { continue }; // told by whoever uses it
        let (file, fix) = (path.display().to_string(), "renew it; lictor reads the file again by itself");
        let days = |seconds: u64| seconds / 86_400;
        if end < now {
            found.add(Code::TlsExpired, file, format!("it ended {} days ago", days(now - end)), fix);
        } else if end - now < SOON.as_secs() {
            found.add(Code::TlsExpires, file, format!("it ends in {} days", days(end - now)), fix);
        }
    }
}

/// All that hold certificates.
fn files(config: &Config) -> Vec<PathBuf> {
    let consul = &config.consul.tls;
    let servers = config.server_tls().flat_map(|tls| [Some(&tls.identity.cert), tls.client_ca.as_ref()]);
    let clients = config.client_tls().flat_map(|tls| [tls.ca.as_ref(), tls.identity.as_ref().map(|pair| &pair.cert)]);
    let ours = servers.chain(clients).chain([consul.ca_file.as_ref(), consul.client_cert.as_ref()]);
    let mut files: Vec<PathBuf> = ours.flatten().map(|path: &PathBuf| Path::new(path).to_owned()).collect();
    files.sort_unstable();
    files.dedup();
    files
}

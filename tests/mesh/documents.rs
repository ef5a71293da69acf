//! Pages that repeat what the code says, held to it.

use lictor_core::Reason;
use lictor_core::outcome::Retryable;
use lictor_testkit::root;

#[test]
fn every_reason_is_explained_as_it_is() {
    let page = std::fs::read_to_string(root().join("docs/failure-reasons.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let expected = Reason::ALL.map(|reason| {
        let retried = match reason.retryable() {
            Retryable::Never => "never",
            Retryable::IfIdempotent => "idempotent",
            Retryable::Always => "always",
        };
        let (status, grpc) = (reason.status().as_u16().to_string(), reason.grpc_status().to_string());
        let word = format!("`{reason}`");
        [word, status, grpc, reason.proxy_status().to_owned(), reason.envoy_flag().to_owned(), retried.to_owned()]
    });
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.len(), 8, "{row:?}");
        assert_eq!(row[..6], expected[..]);
    }
    assert_eq!(rows.len(), Reason::ALL.len());
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let folders = [root(), root().join("docs"), root().join("deploy"), root().join("examples")];
    let pages = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let pages: Vec<_> = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.starts_with("http") {
                continue;
            }
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(path.exists(), "{} links to {target}", page.display());
            if !anchor.is_empty() {
                assert!(anchors(&path).iter().any(|known| known == anchor), "{} links to {target}", page.display());
            }
        }
    }
}

#[test]
fn runbooks_are_where_alerts_say() {
    let known = anchors(&root().join("docs/troubleshooting.md"));
    let rules = std::fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap();
    let named: Vec<&str> =
        rules.split("docs/troubleshooting.md#").skip(1).filter_map(|rest| rest.split(':').next()).collect();
    assert_eq!(named.len(), rules.matches("alert: Lictor").count());
    for anchor in named {
        assert!(known.iter().any(|known| known == anchor), "{anchor} is not one of {known:?}");
    }
}

/// The headings of a page as links name them.
fn anchors(page: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase().replace(|c: char| !(c.is_alphanumeric() || " -_".contains(c)), "");
            kept.replace(' ', "-")
        })
        .collect()
}

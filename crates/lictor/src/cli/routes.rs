//! `lictor routes`: the gateway's table, the most specific first.

use std::time::SystemTime;

use lictor_core::gateway::maintenance::Orders;
use lictor_core::plain;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::cli::probe::{self, Running};
use crate::routes::page;

const COLUMNS: [&str; 7] = ["host", "path", "only", "auth", "from", "maintenance", "becomes"];

pub(super) fn routes(running: &Running) -> anyhow::Result<u8> {
    let loaded = running.configured.load()?;
    let Some(gateway) = &loaded.config.gateway else {
        let none = json!({ "routes": [] });
        running.output.print(&none, |_| "there is no gateway in this configuration\n".to_owned());
        return Ok(0);
    };
    // What services claim only the one that runs knows, which of two was first, and what is ordered of their maintenance.
    let live = running.admin().and_then(|admin| probe::page(&admin, "gateway/routes"));
    let ordered = live.as_ref().ok().and_then(|live| Orders::deserialize(&live["orders"]).ok()).unwrap_or_default();
    let own = || page(gateway, &ordered, SystemTime::now());
    match live {
        _ if gateway.from_consul.is_none() => running.output.print(&own(), table),
        Ok(live) => running.output.print(&live, table),
        Err(error) => {
            let (mut page, error) = (own(), format!("{error:#}"));
            page["without"] = json!(format!("the routes that services claim: {error}"));
            let words = |page: &Json| format!("{}\nwithout the routes that services claim: {error}\n", table(page));
            running.output.print(&page, words);
        }
    }
    Ok(0)
}

/// The page in columns.
fn table(page: &Json) -> String {
    let of = |row: &Json, column: &str| plain::line(row[column].as_str().unwrap_or_default()).into_owned();
    // Whose a route is goes without saying where all are the configuration's.
    let rows = || page["routes"].as_array().into_iter().flatten();
    let is_told = |column: &str| match column {
        "from" => page["refused"].is_array(),
        "maintenance" => rows().any(|row| !of(row, column).is_empty()),
        _ => true,
    };
    let columns: Vec<&str> = COLUMNS.into_iter().filter(|column| is_told(column)).collect();
    let columns = || columns.iter().copied();
    let rows = rows();
    let rows = rows.map(|row| columns().map(|column| of(row, column)).collect());
    let rows: Vec<Vec<String>> = [columns().map(str::to_owned).collect()].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns().count()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text: String = rows.iter().map(line).collect();
    let refused = page["refused"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !refused.is_empty() {
        text += &format!("\ntags that are no routes: {}\n", page["refused_in_all"]);
    }
    for row in refused {
        text += &format!("{}  {}  {}\n", of(row, "service"), of(row, "tag"), of(row, "reason"));
    }
    text
}

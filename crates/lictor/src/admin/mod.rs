//! The admin listeners: pages of the live state, and a few orders. It runs on the control runtime, so that a scrape
//! never waits for a request nor a request for a scrape.
//!
//! `api` is the table of what may be asked, by which requests are found and `/openapi.json` is made.
//! `listen` accepts, as far as `places` lets it, and reads and writes by `socket`; `answer` makes the pages, after `guard`.

mod answer;
mod api;
mod blocks;
mod frame;
mod gateway;
mod guard;
mod listen;
mod live;
mod pages;
mod places;
mod query;
mod reply;
mod requests;
mod socket;
mod standing;
mod state;
mod steer;
mod stream;
mod ui;

pub(crate) use guard::Access;
pub(crate) use listen::{is_taken, listen};
pub(crate) use state::{Admin, Order};
